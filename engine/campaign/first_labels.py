"""The labels that a campaign starts with: imported at init, with the places of their images in the shards."""

from concurrent.futures import ThreadPoolExecutor

from engine.campaign.labels import INITIAL, append_labels, check_classes, label_row
from engine.campaign.positions import SCAN_THREADS, Position, write_positions
from engine.campaign.stages import Log
from engine.config.options import CampaignConfig, ImageConfig
from engine.config.texts import plural
from engine.errors import InputError
from engine.pool.identity import content_hash
from engine.pool.items import read_shard
from engine.pool.shard import Shard
from engine.storage.location import Location
from engine.tables.rows import Row, read_rows
from engine.tables.values import skeleton, text_of


def import_labels(
    home: Location, source: Location, shards: list[Shard], config: CampaignConfig, log: Log
) -> list[Shard]:
    """Import the labels that a campaign starts with. Scans the shards that they name, front to back.

    Returns the shards, with `num_items` where one was scanned.

    Raises InputError for no labels, an unknown shard or key, an empty label, an item labelled twice, or a class that is
    not one of labels.classes.
    """
    rows = read_rows(source, ("shard", "key"), ("label",))
    if not rows:
        raise InputError(f"{source}: no labels; training needs at least one labelled item")
    by_name = {shard.shard: shard for shard in shards}
    wanted: dict[str, dict[str, Row]] = {}
    near = {skeleton(name): name for name in by_name}
    for row in rows:
        where = f"{source}: line {row['line']}"
        shard, key, label = (text_of(row.get(name), f"{where}: {name}") for name in ("shard", "key", "label"))
        if shard not in by_name and (other := near.get(skeleton(shard))):
            raise InputError(f"{where}: shard {shard!r} is not in the pool; did you mean {other!r}?")
        if shard not in by_name:
            example = f"names are paths below the pool's root, for example {shards[0].shard!r}"
            raise InputError(f"{where}: shard {shard!r} is not in the pool; {example}")
        if not label:
            raise InputError(f"{where}: item {shard}/{key} has an empty label; remove the row")
        if config.labels.classes != "from-init":
            check_classes(config.labels.classes, (), label, where)
        if key in wanted.setdefault(shard, {}):
            raise InputError(f"{where}: item {shard}/{key} has two rows; keep one")
        wanted[shard][key] = row
    log(f"{plural(len(rows), 'label')}; looking up in {plural(len(wanted), 'shard')}")
    names = sorted(wanted)
    with ThreadPoolExecutor(SCAN_THREADS) as threads:
        found = list(threads.map(lambda name: _scan(source, by_name[name], wanted[name], config.image), names))
    items = [item for _, positions in found for item in positions]
    labels = [label_row(wanted[shard][key], source, shard, key, None, "init") for shard, key, *_ in items]
    write_positions(home, items)
    append_labels(home, INITIAL, labels)
    counts = {name: count for name, (count, _) in zip(names, found, strict=True)}
    return [shard._replace(num_items=counts.get(shard.shard)) for shard in shards]


def _scan(source: Location, shard: Shard, wanted: dict[str, Row], image: ImageConfig) -> tuple[int, list[Position]]:
    """The number of items in a shard, and the positions of the wanted ones."""
    count, positions, missing = 0, list[Position](), dict(wanted)
    near = dict.fromkeys((skeleton(key, image.suffixes) for key in wanted), "")
    for item in read_shard(shard, image):
        count += 1
        if (plain := skeleton(item.key)) in near:
            near[plain] = item.key
        if row := missing.pop(item.key, None):
            if item.fault:
                where = f"{source}: line {row['line']}: item {shard.shard}/{item.key}"
                raise InputError(f"{where} has {item.fault}; remove the row, or repair the shard")
            positions.append((shard.shard, item.key, item.offset, item.size_bytes, content_hash(item.data)))
    if missing:
        key = min(missing, key=lambda key: missing[key]["line"])
        where = f"{source}: line {missing[key]['line']}"
        other = near[skeleton(key, image.suffixes)]
        advice = f"did you mean {other!r}?" if other else "correct the key, or remove the row"
        raise InputError(f"{where}: no item {key!r} in shard {shard.shard!r}; {advice}")
    return count, positions
