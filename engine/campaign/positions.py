"""Where the labelled images are, so that training reads them by byte range."""

import hashlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.labels import POSITIONS_SCHEMA, Identity, labelled_items, last_of_each
from engine.campaign.places import placed
from engine.campaign.stages import Log
from engine.config.input_options import ImageConfig
from engine.config.texts import plural
from engine.errors import InputError
from engine.pool.identity import content_hash
from engine.pool.items import read_shard
from engine.pool.manifest import look_up_few
from engine.pool.shard import Place, Shard, read_images
from engine.storage.location import Location
from engine.tables.scores import to_table
from engine.tables.values import skeleton

SCAN_THREADS = 8
Position = tuple[str, str, int, int, str | None]
"""shard, key, offset, size_bytes, content_hash."""


def write_positions(home: Location, positions: list[Any] | pa.Table) -> None:
    """Remember positions, rows or a table of POSITIONS_SCHEMA; they are newer than all that are there.

    They matter once their items are labelled, so they are written before the labels.
    """
    table = positions if isinstance(positions, pa.Table) else to_table(positions, POSITIONS_SCHEMA)
    places = pc.binary_join_element_wise(table["shard"], table["key"], table["offset"].cast(pa.string()), "\t")
    digest = hashlib.sha256("\n".join(places.to_pylist()).encode()).hexdigest()[:16]
    name = f"positions-{len((home / 'pool/items').children()):06d}-{digest}"
    (home / f"pool/items/{name}.parquet").write_table(table.cast(POSITIONS_SCHEMA))


def all_positions(home: Location) -> pa.Table:
    """Where images were when they were labelled, each once: POSITIONS_SCHEMA."""
    folder = home / "pool/items"
    tables = ((folder / name).read_typed_table(POSITIONS_SCHEMA) for name in folder.children())
    return last_of_each(pa.concat_tables([POSITIONS_SCHEMA.empty_table(), *tables]))


def earlier_positions(home: Location, numbers: dict[Identity, int]) -> list[Position]:
    """Where items were when there were only so many files of positions, of those that have other positions now."""
    folder, found = home / "pool/items", dict[Identity, Position]()
    for number, name in enumerate(folder.children()):
        rows = _rows((folder / name).read_typed_table(POSITIONS_SCHEMA))
        found |= {row[:2]: row for row in rows if number < numbers.get(row[:2], 0)}
    now = set(_rows(all_positions(home)))
    return [row for row in found.values() if row not in now]


def labelled_positions(home: Location) -> pa.Table:
    """Where the labelled images are now: POSITIONS_SCHEMA, sorted by (shard, offset). Those that are in their shards no
    more are left out, and so are those whose position is not known yet."""
    labelled = labelled_items(home)
    rows = [row for row in all_positions(home).to_pylist() if (row["shard"], row["key"]) in labelled]
    here, _ = placed(home, pa.Table.from_pylist(rows, schema=POSITIONS_SCHEMA))
    return here.sort_by([("shard", "ascending"), ("offset", "ascending")])


def positions_of(
    home: Location, labelled: set[Identity], shards: list[Shard], image: ImageConfig, log: Log, *, is_new: bool = False
) -> list[Position]:
    """Where these items are now, sorted by (shard, offset), without those that are in their shards no more, or in one
    that left the pool and cannot be read.

    Items without a position, with `is_new` all, are found by scanning their shards, and remembered. Where an older
    campaign kept no hash of an image, the bytes that are there now count, and their hash is remembered: the next change
    is seen.

    Raises InputError for an item that is not in the pool, or without exactly one image.
    """
    known = {} if is_new else {row[:2]: row for row in _rows(all_positions(home)) if row[:2] in labelled}
    missing = labelled - set(known)
    by_name = {shard.shard: shard for shard in shards}
    names = sorted({shard for shard, _ in missing})
    if unknown := [name for name in names if name not in by_name]:
        other = {skeleton(name): name for name in by_name}.get(skeleton(unknown[0]), "")
        raise InputError(f"{home}/labels: shard {unknown[0]!r} is not in the pool; {_advice(home, other, is_new)}")
    if names:
        log(f"looking up {plural(len(missing), 'labelled item')} in {plural(len(names), 'shard')}")
        with ThreadPoolExecutor(SCAN_THREADS) as threads:
            found = [p for some in threads.map(lambda name: _scan(by_name[name], missing, image), names) for p in some]
        if lost := missing - {position[:2] for position in found}:
            shard, key = min(lost)
            advice = _advice(home, _near(by_name[shard], key, image), is_new)
            raise InputError(f"{home}/labels: no item {key!r} with one image in shard {shard!r}; {advice}")
        write_positions(home, found)
        known |= {position[:2]: position for position in found}
    here, _ = placed(home, to_table(list(known.values()), POSITIONS_SCHEMA))
    here = _without_lost(here, shards, log)
    return sorted(_with_hashes(home, _rows(here), by_name), key=lambda position: (position[0], position[2]))


def _without_lost(positions: pa.Table, shards: list[Shard], log: Log) -> pa.Table:
    """The positions without those in shards that left the pool and are not there any more, as they were."""
    names = set(positions["shard"].to_pylist())
    left = [shard for shard in shards if shard.left is not None and shard.shard in names]
    lost = [shard.shard for shard, now in zip(left, look_up_few(left), strict=True) if now != shard]
    if not lost:
        return positions
    is_lost = pc.is_in(positions["shard"], value_set=pa.array(lost))
    count, of = plural(pc.sum(is_lost).as_py(), "labelled image"), plural(len(lost), "shard")
    log(f"{count} of {of} that left the pool cannot be read any more, first {min(lost)}: not used; the labels stay")
    return positions.filter(pc.invert(is_lost))


def _with_hashes(home: Location, positions: list[Position], shards: dict[str, Shard]) -> list[Position]:
    lacking: dict[str, list[Position]] = defaultdict(list)
    for position in positions:
        if position[4] is None:
            lacking[position[0]].append(position)

    def read(name: str) -> list[Position]:
        contents = read_images(shards[name], [Place(*position[1:]) for position in lacking[name]])
        return [(*p[:4], content_hash(content)) for p, content in zip(lacking[name], contents, strict=True)]

    if not lacking:
        return positions
    with ThreadPoolExecutor(SCAN_THREADS) as threads:
        found = [position for some in threads.map(read, lacking) for position in some]
    write_positions(home, found)
    known = {position[:2]: position for position in found}
    return [known.get(position[:2], position) for position in positions]


def _rows(table: pa.Table) -> list[Position]:
    return [tuple(row.values()) for row in table.to_pylist()]


def _scan(shard: Shard, wanted: set[Identity], image: ImageConfig) -> list[Position]:
    return [
        (shard.shard, item.key, item.offset, item.size_bytes, content_hash(item.data))
        for item in read_shard(shard, image)
        if (shard.shard, item.key) in wanted and not item.fault
    ]


def _near(shard: Shard, key: str, image: ImageConfig) -> str:
    """The key of the shard that is this one written in another way, or ""."""
    plain = skeleton(key, image.suffixes)
    return next((item.key for item in read_shard(shard, image) if skeleton(item.key) == plain and item.key != key), "")


def _advice(home: Location, other: str, is_new: bool) -> str:
    if is_new:
        return f"did you mean {other!r}?" if other else "give the shard and the key of an image of the pool"
    did_you = f"did you mean {other!r}? " if other else ""
    return f"{did_you}correct the label file, or retract the label: vaal labels {home.quoted} retract SHARD KEY"
