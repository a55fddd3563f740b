"""Chunks: consecutive items of one shard, decoded, as one row that Ray Data neither splits nor merges.

The shard and the image settings alone decide which items a chunk holds. A chunk that is made twice, after a failure or
on another node, is the same chunk.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from engine.config.options import ImageConfig
from engine.pool.identity import ALONE, Groups, content_hash, fold_of
from engine.pool.images import DecodeError, decode
from engine.pool.samples import Item, Unused
from engine.tables.scores import BAD_SCHEMA, ITEM_FIELDS, pack, to_table
from vaal.duplicates.perceptual_hash import perceptual_hash

CHUNK_BYTES = 16 << 20
"""Decoded pixels in a chunk with more than one item, at most."""
MOST_CHUNK_ITEMS = 2048
PASSED_ON = ("shard", "chunk", "listed", "failure", "unused_files", "unused_bytes", "unused_example", "read_bytes")
"""Columns of a chunk's row that scoring leaves as they are."""
ITEMS_SCHEMA = pa.schema([*ITEM_FIELDS, pa.field("fold", pa.int64(), nullable=False)])


def chunk_items(image: ImageConfig) -> int:
    """The number of items in a chunk; the last one of a shard may have fewer."""
    return max(1, min(MOST_CHUNK_ITEMS, CHUNK_BYTES // (image.size**2 * image.channels)))


class Chunk:
    """Consecutive items of one shard, while they are collected."""

    def __init__(
        self, shard: str, number: int, image: ImageConfig, num_folds: int, fold_round: int = 0, groups: Groups = ALONE
    ) -> None:
        self.shard, self.number, self.image = shard, number, image
        self._folds = num_folds, fold_round, groups
        self.items: list[tuple[Any, ...]] = []
        self.bad: list[tuple[Any, ...]] = []
        self._pixels = np.empty((chunk_items(image), image.size, image.size, image.channels), np.uint8)

    def add(self, item: Item) -> None:
        """Decode the item, or record why it cannot be decoded."""
        if item.fault:
            self.refuse(item, item.error, item.fault, "read")
            return
        try:
            self._pixels[len(self.items)] = decode(item.data, self.image)
        except DecodeError as error:
            self.refuse(item, error.kind, str(error))
            return
        except MemoryError:
            message = "the image is within image.max_pixels, but does not fit the memory of this machine"
            self.refuse(item, "OutOfMemory", message)
            return
        fold = fold_of(self.shard, item.key, *self._folds)
        self.items.append((item.key, item.offset, item.size_bytes, content_hash(item.data), fold))

    def refuse(self, item: Item, error: str, message: str, stage: str = "decode") -> None:
        """Record why the item has no pixels."""
        hashed = content_hash(item.data) if item.data else None
        self.bad.append((item.key, item.offset, stage, error, message, hashed))

    def row(self, read_bytes: int, listed: int = -1, failure: str = "", unused: Unused | None = None) -> pa.Table:
        """The chunk as one row. `read_bytes` of the shard were read for it.

        Only the last chunk of a shard has `listed` >= 0, the number of the shard's items, what is `unused` in it, and a
        `failure` if reading the shard failed.
        """
        pixels = self._pixels[: len(self.items)]
        # All pictures are hashed at once: one by one takes many times longer.
        hashes = zip(*perceptual_hash(pixels), strict=True)
        rows = zip(self.items, hashes, strict=True)
        items = [(*item, hash_B.tobytes() if has_hash else None, fold) for (*item, fold), (hash_B, has_hash) in rows]
        ends = pa.py_buffer(np.array([0, pixels.nbytes], np.int64))
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
                "pixels": pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(pixels)]),
                "items": [pack(to_table(items, ITEMS_SCHEMA))],
                "bad": [pack(to_table(self.bad, BAD_SCHEMA)) if self.bad else b""],
            }
        )
