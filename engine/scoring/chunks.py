"""Shards to chunks: consecutive items of one shard, decoded, as one row that Ray Data neither splits nor merges.

Which items a chunk holds follows from the shard and the image settings alone, so a chunk that is made twice, after a
failure or on another node, is still the same chunk.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.config.options import ImageConfig
from engine.errors import InputError
from engine.pool.identity import content_hash, fold_of
from engine.pool.images import DecodeError, decode
from engine.pool.items import Item, read_shard
from engine.pool.manifest import Shard
from engine.scoring.watchdog import Past, Watchdog
from vaal.duplicates.perceptual_hash import HASH_BYTES, perceptual_hash

CHUNK_BYTES = 16 << 20
"""Of decoded pixels in a chunk, at most, if it holds more than one item."""
MOST_CHUNK_ITEMS = 2048
DEATHS_PER_ATTEMPT = 5
"""A process may die of something else than the shard it reads, so that deaths count less than failures."""
ITEMS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("perceptual_hash", pa.binary(HASH_BYTES)),
        pa.field("fold", pa.int64(), nullable=False),
    ]
)
_HASH_COLUMN = ITEMS_SCHEMA.get_field_index("perceptual_hash")
BAD_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)


class Reading(NamedTuple):
    """How shards are read: see `ImageConfig` and `ScoreConfig`."""

    image: ImageConfig
    num_folds: int
    attempts: int
    stall_seconds: float


class Memory(Protocol):
    """`engine.scoring.watchdog.Attempts`, wherever it lives."""

    def begin(self, shard: str) -> Past: ...

    def stalled(self, shard: str, key: str) -> None: ...

    def done(self, shard: str) -> None: ...


def chunk_items(image: ImageConfig) -> int:
    """How many items a chunk holds; the last one of a shard may hold fewer."""
    return max(1, min(MOST_CHUNK_ITEMS, CHUNK_BYTES // (image.size**2 * image.channels)))


class Chunk:
    """Consecutive items of one shard while they are gathered."""

    def __init__(self, shard: str, number: int, image: ImageConfig) -> None:
        self.shard, self.number, self.image = shard, number, image
        self.items: list[tuple[Any, ...]] = []
        self.bad: list[tuple[Any, ...]] = []
        self._pixels = np.empty((chunk_items(image), image.size, image.size, image.channels), np.uint8)

    def add(self, item: Item, fold: int) -> None:
        """Decode the item, or note why not."""
        if item.fault:
            self.bad.append((item.key, item.offset, "read", item.error, item.fault))
            return
        try:
            self._pixels[len(self.items)] = decode(item.data, self.image)
        except DecodeError as error:
            self.refuse(item, error.kind, str(error))
            return
        except MemoryError:
            self.refuse(item, "OutOfMemory", "within image.max_pixels, but it does not fit the memory of this machine")
            return
        self.items.append((item.key, item.offset, item.size_bytes, content_hash(item.data), fold))

    def refuse(self, item: Item, error: str, message: str) -> None:
        """Note why the item is not decoded."""
        self.bad.append((item.key, item.offset, "decode", error, message))

    def row(self, read_bytes: int, listed: int = -1, failure: str = "") -> pa.Table:
        """The chunk as one row. `read_bytes` of the shard were read for it.

        The shard's last chunk alone has `listed` >= 0, the number of its items, and a `failure` if reading it failed.
        """
        pixels = self._pixels[: len(self.items)]
        # Of the whole chunk at once, for one by one it takes many times longer.
        items = to_table(self.items, ITEMS_SCHEMA.remove(_HASH_COLUMN))
        items = items.add_column(_HASH_COLUMN, ITEMS_SCHEMA.field(_HASH_COLUMN), _hash_column(pixels))
        ends = pa.py_buffer(np.array([0, pixels.nbytes], np.int64))
        return pa.table(
            {
                "shard": [self.shard],
                "chunk": [self.number],
                "listed": [listed],
                "failure": [failure],
                "read_bytes": [read_bytes],
                "pixels": pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(pixels)]),
                "items": [pack(items)],
                "bad": [pack(to_table(self.bad, BAD_SCHEMA)) if self.bad else b""],
            }
        )


def _hash_column(pixels_NHWC: NDArray[np.uint8]) -> pa.Array:
    """The pictures' perceptual hashes, null where one has none."""
    hashes = perceptual_hash(pixels_NHWC)
    has_hash = pa.py_buffer(np.packbits(hashes.has_hash_N, bitorder="little"))
    return pa.Array.from_buffers(
        pa.binary(HASH_BYTES), len(pixels_NHWC), [has_hash, pa.py_buffer(np.ascontiguousarray(hashes.hash_NB))]
    )


def to_table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Rows, as tuples in the schema's order, as a table."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(schema)
    return pa.table(columns, schema=schema)


def pack(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(content: bytes) -> pa.Table:
    """What `pack` packed."""
    return pa.ipc.open_stream(content).read_all()


def read_chunks(shard: Shard, reading: Reading, memory: Memory) -> Iterator[pa.Table]:
    """The chunks of a shard as rows, in order. A shard that cannot be read ends in a row that says why.

    An attempt that fails is followed by another, which does not hand on again what was handed on before.
    """
    past, made = memory.begin(shard.shard), 0
    failure = _give_up(past, reading)
    with Watchdog(reading.stall_seconds, partial(memory.stalled, shard.shard)) as watchdog:
        for _ in range(0 if failure else reading.attempts):
            try:
                for row in _attempt(shard, reading, made, past.items, watchdog):
                    made += 1
                    yield row
            except InputError as error:
                failure = f"{error} ({reading.attempts} attempts)" if reading.attempts > 1 else str(error)
            else:
                memory.done(shard.shard)
                return
    memory.done(shard.shard)
    yield Chunk(shard.shard, made, reading.image).row(0, listed=0, failure=failure)


def _give_up(past: Past, reading: Reading) -> str:
    """Why the shard is not read once more; empty when it is."""
    if past.stalls >= reading.attempts:
        return f"reading made no progress for score.stall_seconds={reading.stall_seconds:g}, {past.stalls} times"
    if past.begun >= DEATHS_PER_ATTEMPT * reading.attempts:
        return f"the process that read it died {past.begun} times"
    return ""


def _attempt(
    shard: Shard, reading: Reading, first: int, stalled: frozenset[str], watchdog: Watchdog
) -> Iterator[pa.Table]:
    """The chunks from number `first` on, as rows."""
    chunk, listed, position = Chunk(shard.shard, 0, reading.image), 0, 0
    size, items = chunk_items(reading.image), read_shard(shard, reading.image)
    watchdog.start("")
    for item in items:
        listed += 1
        if item.key in stalled:
            message = f"decoding took longer than score.stall_seconds={reading.stall_seconds:g}"
            chunk.refuse(item, "Stalled", message)
        elif (listed - 1) // size >= first:
            watchdog.start(item.key)
            chunk.add(item, fold_of(shard.shard, item.key, reading.num_folds))
        if listed % size == 0:
            watchdog.stop()
            end = item.offset + item.size_bytes
            if chunk.number >= first:
                yield chunk.row(end - position)
            chunk, position = Chunk(shard.shard, chunk.number + 1, reading.image), end
        watchdog.start("")
    watchdog.stop()
    yield chunk.row(shard.size_bytes - position, listed=listed)
