"""The labels that a campaign starts with: imported at init, with the places of their images in the shards."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from engine.campaign.classes import Classes, joined, label_of, names_in
from engine.campaign.labels import INITIAL, append_labels, label_row
from engine.campaign.positions import SCAN_THREADS, Position, write_positions
from engine.campaign.stages import Log
from engine.config.input_options import ImageConfig
from engine.config.options import CampaignConfig
from engine.config.texts import plural
from engine.errors import ConfigError, InputError
from engine.pool.clips import FRAMES, example_of_frames
from engine.pool.identity import ALONE, Groups, content_hash
from engine.pool.items import read_shard
from engine.pool.metadata import read_groups
from engine.pool.shard import Shard
from engine.storage.location import Location
from engine.tables.rows import Row, read_rows
from engine.tables.values import class_name, is_blank, is_no_label, skeleton, text_of

SHARDS_WITH_KEYS, MOST_KEYS = 100, 1000
"""So many keys of each of so many shards are looked at for frames of clips."""


OF_MASK = "mask"
"""The label of an image whose mask is found by its key."""


class _Scanned(NamedTuple):
    """The number of items of a shard, how many of them have no group and the first of those, its first keys, and the
    positions of the labelled items."""

    num_items: int
    num_alone: int
    first_alone: str
    keys: list[str]
    positions: list[Position]


def import_labels(
    home: Location, source: Location, shards: list[Shard], config: CampaignConfig, log: Log
) -> list[Shard]:
    """Import the labels that a campaign starts with. Scans the shards that they name, front to back.

    Returns the shards, with `num_items` where one was scanned.

    Raises InputError for no labels, an unknown shard or key, an empty label, an item labelled twice, or a class that is
    not one of labels.classes.
    """
    rows = _rows(source, config)
    if not rows:
        raise InputError(f"{source}: no labels; training needs at least one labelled item")
    wanted = _wanted(source, rows, [shard.shard for shard in shards], config)
    by_name = {shard.shard: shard for shard in shards}
    log(f"{plural(len(rows), 'label')}; looking up in {plural(len(wanted), 'shard')}")
    names, groups = sorted(wanted), read_groups(home, config.pool.group)

    def scan(name: str) -> _Scanned:
        most_keys = MOST_KEYS if name in names[:SHARDS_WITH_KEYS] else 0
        return _scan(source, by_name[name], wanted[name], config.image, groups, most_keys)

    with ThreadPoolExecutor(SCAN_THREADS) as threads:
        found = list(threads.map(scan, names))
    items = [item for scanned in found for item in scanned.positions]
    _log_groups(found, groups, config, log)
    labels = [label_row(wanted[shard][key], source, (shard, key), None, "init", INITIAL) for shard, key, *_ in items]
    write_positions(home, items)
    append_labels(home, INITIAL, labels)
    counts = {name: scanned.num_items for name, scanned in zip(names, found, strict=True)}
    return [shard._replace(num_items=counts.get(shard.shard)) for shard in shards]


def begin_without_labels(home: Location, config: CampaignConfig) -> None:
    """Begin a campaign that has no labels. Raises ConfigError where an option needs the first ones."""
    if config.labels.classes == "from-init":
        raise ConfigError("labels.classes=from-init: there are no labels at init; name the classes, or leave it out")
    append_labels(home, INITIAL, [])


def _rows(source: Location, config: CampaignConfig) -> list[Row]:
    has_masks = _have_masks(config)
    try:
        return read_rows(source, ("shard", "key"), () if has_masks else ("label",))
    except InputError as error:
        if config.task_kind != "segmentation" or has_masks or "no column 'label'" not in str(error):
            raise
        fix = "say where the masks are: --set labels.masks=member:seg.png (in each sample), or a folder of KEY.png"
        raise InputError(f"{error}; or {fix}") from error


def _wanted(source: Location, rows: list[Row], shards: list[str], config: CampaignConfig) -> dict[str, dict[str, Row]]:
    """The rows by shard and key, with the labels as they are kept. Raises InputError as `import_labels`."""
    wanted: dict[str, dict[str, Row]] = {}
    names, near, listed = set(shards), {skeleton(name): name for name in shards}, config.labels.classes
    allowed = Classes([] if listed == "from-init" else [class_name(name) for name in listed], "labels.classes")
    for row in rows:
        where = f"{source}: line {row['line']}"
        shard, key = (text_of(row[name], f"{where}: {name}") for name in ("shard", "key"))
        if shard not in names and (other := near.get(skeleton(shard))):
            raise InputError(f"{where}: shard {shard!r} is not in the pool; did you mean {other!r}?")
        if shard not in names:
            example = f"names are paths below the pool's root, for example {shards[0]!r}"
            raise InputError(f"{where}: shard {shard!r} is not in the pool; {example}")
        label = _label_of(row.get("label"), f"{where}: item {shard}/{key}", config)
        for name in names_in(label, config.handoff.question.task):
            if fault := allowed.fault(name):
                raise InputError(f"{where}: {joined(fault, allowed.advice([name]))}")
        if key in wanted.setdefault(shard, {}):
            raise InputError(f"{where}: item {shard}/{key} has two rows; keep one")
        wanted[shard][key] = row | {"label": label}
    return wanted


def _have_masks(config: CampaignConfig) -> bool:
    """Whether the labels are masks, which labels.masks leads to: a row says which images have one."""
    return config.task_kind == "segmentation" and bool(config.labels.masks)


def _label_of(cell: Any, where: str, config: CampaignConfig) -> str:
    """A cell as a label. Raises InputError for one that says nothing."""
    if is_blank(cell) or (isinstance(cell, str) and is_no_label(cell, config.named_classes)):
        if _have_masks(config):
            return OF_MASK
        is_several = config.handoff.question.task == "classes"
        fix = "remove the row" + (", or write [] for an image without any class" if is_several else "")
        if is_blank(cell):
            raise InputError(f"{where} has an empty label; {fix}")
        why = f"{class_name(cell)!r} for a label, which says that there is none"
        raise InputError(f"{where} has {why}; {fix}, or name it in labels.classes")
    return label_of(cell, config, f"{where}: label")


def _log_groups(found: list[_Scanned], groups: Groups, config: CampaignConfig, log: Log) -> None:
    """Log how the items are grouped, or that they look as if they should be. Raises ConfigError for a bound on groups
    that there are none of."""
    if groups == ALONE:
        if example := example_of_frames(key for scanned in found for key in scanned.keys):
            why = f"keys look like frames of clips, for example {example!r}, and pool.group is not set"
            log(f"{why}; to judge no frame by its neighbours, init again with: --set 'pool.group={FRAMES}'")
        return
    named = {name for scanned in found for place in scanned.positions if (name := groups.of(*place[:2]))}
    lone = [example for scanned in found if (example := scanned.first_alone)]
    num_items, num_alone = (sum(counts) for counts in zip(*(scanned[:2] for scanned in found), strict=True))
    words = f"pool.group: the labels are of {plural(len(named), 'group')}"
    example = f", for example {lone[0]}, and are a group each" if lone else ""
    log(f"{words}; of {plural(num_items, 'item')} in their shards {num_alone:,} have none{example}")
    if config.select.per_group and num_alone == num_items:
        why = f"it names a group of none of the {plural(num_items, 'item')} in the shards with labels{example}"
        fix = "correct it, or leave out select.per_group, which would bound nothing"
        raise ConfigError(f"pool.group={config.pool.group}: {why}; {fix}")


def _scan(
    source: Location, shard: Shard, wanted: dict[str, Row], image: ImageConfig, groups: Groups, most_keys: int
) -> _Scanned:
    """What a shard holds, with the positions of the wanted items."""
    count, positions, missing = 0, list[Position](), dict(wanted)
    num_alone, first_alone, keys = 0, "", list[str]()
    near = dict.fromkeys((skeleton(key, image.suffixes) for key in wanted), "")
    for item in read_shard(shard, image):
        count += 1
        if count <= most_keys:
            keys.append(item.key)
        if groups != ALONE and not groups.of(shard.shard, item.key):
            num_alone, first_alone = num_alone + 1, first_alone or f"{shard.shard}/{item.key}"
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
    return _Scanned(count, num_alone, first_alone, keys, positions)
