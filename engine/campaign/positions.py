"""Where the labelled images are, so that training reads them by byte range."""

import hashlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.labels import POSITIONS_SCHEMA, Identity, identities, read_snapshot
from engine.campaign.packed_positions import (
    PACKED_SCHEMA,
    PLACES_SCHEMA,
    Position,
    Positions,
    as_packed,
    as_texts,
    rows_of,
    sorted_places,
)
from engine.campaign.places import are_touched, placed
from engine.campaign.stages import Log
from engine.cluster.allocation import give_back_freed_memory
from engine.config.input_options import ImageConfig
from engine.config.texts import plural
from engine.errors import ConfigError, InputError
from engine.pool.identity import content_hash
from engine.pool.items import read_shard
from engine.pool.manifest import look_up_few
from engine.pool.shard import Place, Shard, read_images
from engine.pool.shards import Shards
from engine.storage.location import Location
from engine.tables.by_shard import places_of_texts
from engine.tables.columns import rows_where
from engine.tables.digests import DIGEST, NO_HASH, NUM_BYTES, packed
from engine.tables.item_keys import ITEM_SCHEMA, ItemIndex, ItemKeys, are_in, last_of_each
from engine.tables.scores import to_table
from engine.tables.values import skeleton

SCAN_THREADS = 8


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
    """Where images were when they were labelled, each once: PLACES_SCHEMA."""
    return last_of_each(_every_position(home))


def _every_position(home: Location) -> pa.Table:
    """All rows of all files, older ones first."""
    folder = home / "pool/items"
    tables = (_read(folder / name) for name in folder.children())
    return pa.concat_tables([PLACES_SCHEMA.empty_table(), *tables])


def _read(file: Location) -> pa.Table:
    table = file.read_typed_table(POSITIONS_SCHEMA)
    return table.set_column(0, PLACES_SCHEMA.field(0), table["shard"].dictionary_encode())


def positions_with(home: Location, items: pa.Table) -> pa.Table:
    """As `all_positions`, of the items of a table with shard and key, in its order."""
    return as_texts(packed_positions(home, items.select(ITEM_SCHEMA.names)))


def packed_positions(home: Location, items: pa.Table) -> pa.Table:
    """As `positions_with`: PACKED_SCHEMA, and behind it what else `items` has. Where all items have positions, the
    texts are those of `items`.

    Raises ConfigError for a file that is not a table of positions.
    """
    index, size, folder = ItemIndex(ItemKeys.of(items)), len(items), home / "pool/items"
    offset_N, size_N = np.full(size, -1), np.full(size, -1)
    hash_N, has_hash_N = np.zeros((size, NUM_BYTES), np.uint8), np.zeros(size, bool)
    for name in folder.children():
        rows, table = _asked(index, (folder / name).read_typed_table(POSITIONS_SCHEMA))
        offset_N[rows], size_N[rows] = table["offset"].to_numpy(), table["size_bytes"].to_numpy()
        has_hash_N[rows] = table["content_hash"].is_valid().to_numpy()
        hash_N[rows] = _bytes_of(folder / name, table["content_hash"])
        del rows, table
        # The files lie between what is kept.
        give_back_freed_memory()
    hashes = pa.Array.from_buffers(DIGEST, size, [None, pa.py_buffer(hash_N)])
    if not has_hash_N.all():
        hashes = pc.if_else(pa.array(has_hash_N), hashes, pa.scalar(None, DIGEST))
    shard = items["shard"] if pa.types.is_dictionary(items["shard"].type) else items["shard"].dictionary_encode()
    rest = items.drop_columns(["shard", "key"])
    columns = [shard, items["key"], pa.array(offset_N), pa.array(size_N), hashes, *rest.columns]
    found = pa.table(columns, schema=pa.schema([*PACKED_SCHEMA, *rest.schema]))
    return found if (offset_N >= 0).all() else found.filter(pa.array(offset_N >= 0))


def _asked(index: ItemIndex, table: pa.Table) -> tuple[NDArray[np.int64], pa.Table]:
    """Of the rows of a file those about items of an index, and which rows of it they are: of several of an item the
    last one counts, also in a file."""
    row_F = index.rows_of(ItemKeys.of(table))
    return row_F[row_F >= 0], rows_where(table.drop_columns(["shard", "key"]), row_F >= 0)


def _bytes_of(file: Location, hashes: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Hashes as bytes (N, 16), zeros for a null."""
    try:
        content = packed(pc.fill_null(hashes, NO_HASH))
    except ValueError as error:
        raise ConfigError(f"{file}: not a table of this kind: content_hash: {error}; restore it from a copy") from error
    return np.frombuffer(content.buffers()[1], np.uint8).reshape(-1, NUM_BYTES)


def earlier_positions(home: Location, numbers: dict[Identity, int]) -> list[Position]:
    """Where items were when there were only so many files of positions, of those that have other positions now."""
    folder, found = home / "pool/items", dict[Identity, Position]()
    for number, name in enumerate(folder.children()):
        rows = rows_of(_read(folder / name))
        found |= {row[:2]: row for row in rows if number < numbers.get(row[:2], 0)}
    now = set(rows_of(all_positions(home)))
    return [row for row in found.values() if row not in now]


def labelled_positions(home: Location) -> pa.Table:
    """Where the labelled images are now: PLACES_SCHEMA, sorted by (shard, offset).

    Those that are in their shards no more are left out, and so are those whose position is not known yet.
    """
    labelled = read_snapshot(home, ["shard", "key", "label", "round"]).labels.select(ITEM_SCHEMA.names)
    return as_texts(sorted_places(_here(home, packed_positions(home, labelled))))


def _here(home: Location, known: pa.Table) -> pa.Table:
    """Positions, PACKED_SCHEMA, as they are now, without those of images that are in their shards no more."""
    is_touched = are_touched(home, known["shard"])
    if not is_touched.any():
        return known
    now, _ = placed(home, as_texts(known.filter(pa.array(is_touched))))
    return pa.concat_tables([known.filter(pa.array(~is_touched)), as_packed(now)])


def positions_of(
    home: Location, labelled: pa.Table, shards: Shards, image: ImageConfig, log: Log, *, new_in: str = ""
) -> Positions:
    """As `places_of`, of a table with shard and key."""
    items = labelled.select(ITEM_SCHEMA.names)
    return Positions(sorted_places(places_of(home, items, shards, image, log, new_in=new_in)))


def places_of(
    home: Location, labelled: pa.Table, shards: Shards, image: ImageConfig, log: Log, *, new_in: str = ""
) -> pa.Table:
    """Where items are now, without those that are in their shards no more, or in one that left the pool and cannot be
    read. `labelled` has the columns shard and key, and what it has besides comes along: PACKED_SCHEMA, and behind it
    that.

    Items without a position, with `new_in` all, are found by scanning their shards, and remembered. Where an older
    campaign kept no hash of an image, the bytes that are there now count, and their hash is remembered: the next change
    is seen. `new_in` says in errors where new items are named.

    Raises InputError for an item that is not in the pool, or without exactly one image.
    """
    known = packed_positions(home, labelled.slice(0, 0) if new_in else labelled)
    if len(known) < len(labelled):
        lacking = labelled.filter(pa.array(~are_in(labelled, known)))
        found = _scanned(home, set(identities(lacking)), shards, image, log, new_in)
        known = pa.concat_tables([known, _with_rest(found, lacking)])
    return _with_hashes(home, _without_lost(_here(home, known), shards, log), shards)


def _with_rest(found: list[Position], items: pa.Table) -> pa.Table:
    """Positions as PACKED_SCHEMA, and behind it what else a table says of these items."""
    table = as_packed(to_table(found, POSITIONS_SCHEMA))
    rows = pa.array(ItemIndex(ItemKeys.of(items)).rows_of(ItemKeys.of(table)))
    for field in items.schema:
        if field.name not in table.column_names:
            table = table.append_column(field, items[field.name].take(rows))
    return table


def _scanned(
    home: Location, missing: set[Identity], shards: Shards, image: ImageConfig, log: Log, new_in: str
) -> list[Position]:
    """Where these items are by a scan of their shards, which is remembered."""
    names = sorted({shard for shard, _ in missing})
    by_name, named = shards.find(names), new_in or f"{home}/labels"
    if unknown := [name for name in names if name not in by_name]:
        other = {skeleton(name): name for name in shards.names.to_pylist()}.get(skeleton(unknown[0]), "")
        raise InputError(f"{named}: shard {unknown[0]!r} is not in the pool; {_advice(home, other, bool(new_in))}")
    log(f"looking up {plural(len(missing), 'labelled item')} in {plural(len(names), 'shard')}")
    with ThreadPoolExecutor(SCAN_THREADS) as threads:
        found = [p for some in threads.map(lambda name: _scan(by_name[name], missing, image), names) for p in some]
    if lost := missing - {position[:2] for position in found}:
        shard, key = min(lost)
        advice = _advice(home, _near(by_name[shard], key, image), bool(new_in))
        raise InputError(f"{named}: no item {key!r} with one image in shard {shard!r}; {advice}")
    write_positions(home, found)
    return found


def _without_lost(positions: pa.Table, shards: Shards, log: Log) -> pa.Table:
    """The positions without those in shards that left the pool and are not there any more, as they were."""
    left = shards.where(shards.have_left)
    if not left:
        return positions
    left = left.where(left.are_named(places_of_texts(positions["shard"])[0]))
    lost = left.where(~look_up_few(left).are_same(left)).names
    if not lost:
        return positions
    is_lost = pc.is_in(positions["shard"].cast(pa.string()), value_set=lost)
    count, of = plural(pc.sum(is_lost).as_py(), "labelled image"), plural(len(lost), "shard")
    log(f"{count} of {of} that left the pool cannot be read any more, first {pc.min(lost)}: not used; the labels stay")
    return positions.filter(pc.invert(is_lost))


def _with_hashes(home: Location, table: pa.Table, shards: Shards) -> pa.Table:
    if not table["content_hash"].null_count:
        return table
    is_lacking = table["content_hash"].is_null()
    lacking, by_shard = table.filter(is_lacking), defaultdict[str, list[Position]](list)
    for position in rows_of(as_texts(lacking.select(PACKED_SCHEMA.names))):
        by_shard[position[0]].append(position)
    by_name = shards.find(by_shard)

    def read(name: str) -> list[Position]:
        contents = read_images(by_name[name], [Place(*position[1:]) for position in by_shard[name]])
        return [(*p[:4], content_hash(content)) for p, content in zip(by_shard[name], contents, strict=True)]

    with ThreadPoolExecutor(SCAN_THREADS) as threads:
        found = [position for some in threads.map(read, by_shard) for position in some]
    write_positions(home, found)
    return pa.concat_tables([table.filter(pc.invert(is_lacking)), _with_rest(found, lacking)])


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
