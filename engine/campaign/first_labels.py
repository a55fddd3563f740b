"""The labels that a campaign starts with: imported at init, with the places of their images in the shards."""

from concurrent.futures import ThreadPoolExecutor

from engine.campaign.labels import append_labels, label_row
from engine.campaign.stages import Log
from engine.config.options import ImageConfig
from engine.errors import InputError
from engine.pool.items import read_shard
from engine.pool.shard import Shard
from engine.storage.location import Location
from engine.tables.rows import Row, read_rows

SCAN_THREADS = 8


def import_labels(home: Location, source: Location, shards: list[Shard], image: ImageConfig, log: Log) -> list[Shard]:
    """Import the labels that a campaign starts with. Scans the shards that they name, front to back.

    Returns the shards, with `num_items` where one was scanned.

    Raises:
        InputError: no labels, an unknown shard or key, an empty label, or an item labelled twice.
    """
    rows = read_rows(source, ("shard", "key", "label"))
    if not rows:
        raise InputError(f"{source}: no labels; training needs at least one labelled item")
    by_name = {shard.shard: shard for shard in shards}
    wanted: dict[str, dict[str, Row]] = {}
    for row in rows:
        shard, key = str(row["shard"]), str(row["key"])
        if shard not in by_name:
            raise InputError(
                f"{source}: line {row['line']}: shard {shard!r} is not in the pool; "
                f"names are paths below the pool's root, for example {shards[0].shard!r}"
            )
        if str(row["label"]).strip() == "":
            raise InputError(f"{source}: line {row['line']}: item {shard}/{key} has an empty label; remove the row")
        if key in wanted.setdefault(shard, {}):
            raise InputError(f"{source}: line {row['line']}: item {shard}/{key} has two rows; keep one")
        wanted[shard][key] = row
    log(f"{len(rows)} labels; looking them up in {len(wanted)} shards")
    items, counts = _find(source, wanted, by_name, image)
    labels = [label_row(wanted[shard][key], shard, key, None, "init") for shard, key, *_ in items]
    append_labels(home, "initial", items, labels)
    return [shard._replace(num_items=counts.get(shard.shard)) for shard in shards]


def _find(
    source: Location, wanted: dict[str, dict[str, Row]], by_name: dict[str, Shard], image: ImageConfig
) -> tuple[list[tuple[str, str, int, int]], dict[str, int]]:
    def scan(name: str) -> tuple[int, list[tuple[str, str, int, int]]]:
        count, found = 0, []
        for item in read_shard(by_name[name], image):
            count += 1
            if item.key in wanted[name]:
                if item.fault:
                    line = wanted[name][item.key]["line"]
                    raise InputError(f"{source}: line {line}: item {name}/{item.key} has {item.fault}")
                found.append((name, item.key, item.offset, item.size_bytes))
        return count, found

    items: list[tuple[str, str, int, int]] = []
    counts: dict[str, int] = {}
    names = sorted(wanted)
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        for name, (count, found) in zip(names, pool.map(scan, names), strict=True):
            unknown = set(wanted[name]) - {key for _, key, _, _ in found}
            if unknown:
                key = min(unknown, key=lambda k: wanted[name][k]["line"])
                raise InputError(f"{source}: line {wanted[name][key]['line']}: no item {key!r} in shard {name!r}")
            counts[name] = count
            items.extend(found)
    return items, counts
