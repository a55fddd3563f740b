"""Chunks: consecutive items of one shard, as the networks see them, as one row that Ray Data neither splits nor merges.

The shard and the image settings alone decide which items a chunk holds. A chunk that is made twice, after a failure or
on another node, is the same chunk.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.pool.identity import ALONE, Groups, content_hash, fold_of
from engine.pool.images import DecodeError
from engine.pool.samples import Item, Unused
from engine.pool.sight import Sight
from engine.pool.vectors import VectorError
from engine.tables.scores import BAD_SCHEMA, ITEM_FIELDS, pack, to_table
from vaal.duplicates.perceptual_hash import perceptual_hash

CHUNK_BYTES = 16 << 20
"""Decoded pixels, or embeddings, in a chunk with more than one item, at most."""
MOST_CHUNK_ITEMS = 2048
SEEN = ("seen", "task_seen")
"""Columns of a chunk's row with the arrays of `Sight.shapes`; the second only where there are two."""
PASSED_ON = ("shard", "chunk", "listed", "failure", "unused_files", "unused_bytes", "unused_example", "read_bytes")
"""Columns of a chunk's row that scoring leaves as they are."""
ITEMS_SCHEMA = pa.schema([*ITEM_FIELDS, pa.field("fold", pa.int64(), nullable=False)])


def chunk_items(sight: Sight) -> int:
    """The number of items in a chunk; the last one of a shard may have fewer."""
    size_bytes: int = sum(map(math.prod, sight.shapes)) * sight.dtype.itemsize
    return max(1, min(MOST_CHUNK_ITEMS, CHUNK_BYTES // size_bytes))


class Chunk:
    """Consecutive items of one shard, while they are collected."""

    def __init__(
        self, shard: str, number: int, sight: Sight, num_folds: int, fold_round: int = 0, groups: Groups = ALONE
    ) -> None:
        self.shard, self.number, self._has_pixels = shard, number, sight.vectors is None
        self._folds = num_folds, fold_round, groups
        self.items: list[tuple[Any, ...]] = []
        self.bad: list[tuple[Any, ...]] = []
        self._seen = [np.empty((chunk_items(sight), *shape), sight.dtype) for shape in sight.shapes]

    def add(self, item: Item, see: Callable[[Item], list[NDArray[Any]]]) -> None:
        """Add what the networks see of the item, by `Sight.all_of`, or record why they see nothing."""
        if item.fault:
            self.refuse(item, item.error, item.fault, "read")
            return
        try:
            for held, found in zip(self._seen, see(item), strict=True):
                held[len(self.items)] = found
        except DecodeError as error:
            self.refuse(item, error.kind, str(error))
            return
        except VectorError as error:
            self.refuse(item, error.kind, str(error), "embedding")
            return
        except MemoryError:
            message = "the image is within image.max_pixels, but does not fit the memory of this machine"
            self.refuse(item, "OutOfMemory", message)
            return
        fold = fold_of(self.shard, item.key, *self._folds)
        self.items.append((item.key, item.offset, item.size_bytes, content_hash(item.data), fold))

    def refuse(self, item: Item, error: str, message: str, stage: str = "decode") -> None:
        """Record why the networks see nothing of the item."""
        hashed = content_hash(item.data) if item.data else None
        self.bad.append((item.key, item.offset, stage, error, message, hashed))

    def row(self, read_bytes: int, listed: int = -1, failure: str = "", unused: Unused | None = None) -> pa.Table:
        """The chunk as one row. `read_bytes` of the shard were read for it.

        Only the last chunk of a shard has `listed` >= 0, the number of the shard's items, what is `unused` in it, and a
        `failure` if reading the shard failed.
        """
        seen = [held[: len(self.items)] for held in self._seen]
        hashes: list[bytes | None] = [None] * len(seen[0])
        if self._has_pixels:
            # All pictures are hashed at once: one by one takes many times longer.
            hashes = [
                hash_B.tobytes() if has_hash else None
                for hash_B, has_hash in zip(*perceptual_hash(seen[0]), strict=True)
            ]
        items = [(*item, hashed, fold) for (*item, fold), hashed in zip(self.items, hashes, strict=True)]
        return pa.table(
            {
                "shard": [self.shard],
                "chunk": [self.number],
                "listed": [listed],
                "failure": [failure],
                "unused_files": [unused.files if unused else 0],
                "unused_bytes": [unused.bytes if unused else 0],
                "unused_example": [unused.example if unused else ""],
                "read_bytes": [read_bytes],
                **{name: _binary(found) for name, found in zip(SEEN, seen, strict=False)},
                "items": [pack(to_table(items, ITEMS_SCHEMA))],
                "bad": [pack(to_table(self.bad, BAD_SCHEMA)) if self.bad else b""],
            }
        )


def _binary(values: NDArray[Any]) -> pa.Array:
    """The bytes of an array as one value, not copied."""
    ends = pa.py_buffer(np.array([0, values.nbytes], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(values)])
