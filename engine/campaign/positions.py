"""Where the labelled images are, so that training reads them by byte range."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from engine.campaign.labels import POSITIONS_SCHEMA, Identity
from engine.campaign.stages import Log
from engine.config.options import ImageConfig
from engine.errors import InputError
from engine.pool.items import read_shard
from engine.pool.shard import Shard
from engine.storage.location import Location
from engine.tables.scores import to_table

SCAN_THREADS = 8
Position = tuple[str, str, int, int]
"""shard, key, offset, size_bytes."""


def write_positions(home: Location, positions: list[Position]) -> None:
    """Remember positions. They matter once their items are labelled, so they are written before the labels."""
    name = hashlib.sha256(repr(positions).encode()).hexdigest()[:16]
    (home / f"pool/items/{name}.parquet").write_table(to_table(positions, POSITIONS_SCHEMA))


def positions_of(
    home: Location, labelled: set[Identity], shards: list[Shard], image: ImageConfig, log: Log
) -> list[Position]:
    """The positions of these items, sorted by (shard, offset).

    Items without a position are found by scanning their shards, and remembered.

    Raises InputError for an item that is not in the pool, or without exactly one image.
    """
    known = {position[:2]: position for position in _remembered(home) if position[:2] in labelled}
    missing = labelled - set(known)
    by_name = {shard.shard: shard for shard in shards}
    names = sorted({shard for shard, _ in missing})
    if unknown := [name for name in names if name not in by_name]:
        raise InputError(f"{home}/labels: shard {unknown[0]!r} is not in the pool; {_advice(home)}")
    if names:
        log(f"looking up {len(missing)} labelled items in {len(names)} shards")
        with ThreadPoolExecutor(SCAN_THREADS) as threads:
            found = [p for some in threads.map(lambda name: _scan(by_name[name], missing, image), names) for p in some]
        if lost := missing - {position[:2] for position in found}:
            shard, key = min(lost)
            raise InputError(f"{home}/labels: no item {key!r} with one image in shard {shard!r}; {_advice(home)}")
        write_positions(home, found)
        known |= {position[:2]: position for position in found}
    return sorted(known.values(), key=lambda position: (position[0], position[2]))


def _remembered(home: Location) -> list[Position]:
    folder = home / "pool/items"
    tables = ((folder / name).read_typed_table(POSITIONS_SCHEMA) for name in folder.children())
    return [tuple(row.values()) for row in pa.concat_tables([POSITIONS_SCHEMA.empty_table(), *tables]).to_pylist()]


def _scan(shard: Shard, wanted: set[Identity], image: ImageConfig) -> list[Position]:
    return [
        (shard.shard, item.key, item.offset, item.size_bytes)
        for item in read_shard(shard, image)
        if (shard.shard, item.key) in wanted and not item.fault
    ]


def _advice(home: Location) -> str:
    return f"correct the label file, or retract the label: vaal labels {home} retract SHARD KEY"
