"""A few neighbouring items of a shard, read without what is before them."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain as chain_of

import pyarrow as pa

from engine.config.options import ImageConfig
from engine.errors import one_line
from engine.pool.items import LARGEST_BLOCK_BYTES, read_items
from engine.pool.samples import OUTSIDE_SAMPLES, Item
from engine.pool.shard import DamagedShardError, Shard, ShardError, check_unchanged, open_in_any_order
from engine.pool.tar import BLOCK, Archive, header_at
from engine.storage.retries import RetryingStream

BEHIND_BYTES = 64 << 10
"""What is read at once behind a run's end, where its last item ends."""
BEFORE_BYTES = 8 * BLOCK
"""What is looked at before a run's beginning: there may be the extended header of its first file."""


def read_run(shard: Shard, image: ImageConfig, begin: int, end: int) -> list[Item]:
    """The samples of bytes `begin` to `end`, multiples of 512. A shard that is cut into runs gives each of them once.

    A run begins behind the sample of the first header at or after `begin` (with it at byte 0), and ends with the sample
    of the first header at or after `end`: so no sample is read in part.

    Raises ShardError as `engine.pool.items.read_shard` does, but sees no damage in front of the run, and no change
    while it is read.
    """
    try:
        return list(_read(shard, image, begin, end))
    except DamagedShardError:
        check_unchanged(shard)
        if not begin:
            raise
        # What looked like a header may be content: an archive in the archive, say. Only the way from the first byte
        # tells.
        return [item for item in _read(shard, image, 0, end) if begin < item.offset <= end]


def _read(shard: Shard, image: ImageConfig, begin: int, end: int) -> Generator[Item]:
    start = max(0, begin - BEFORE_BYTES)
    try:
        with closing(open_in_any_order(shard)) as stream:
            blocks = _blocks(stream, start, end)
            first, blocks = _from_header(blocks, start, begin, end) if begin else (0, blocks)
            if first == end:
                # Within one large file.
                return
            passed_over = "" if begin else None
            for item in read_items(Archive(blocks, shard.url, shard.size_bytes, first), image, end):
                if item.error in OUTSIDE_SAMPLES:
                    continue
                passed_over = item.key if passed_over == "" else passed_over
                if item.key != passed_over:
                    yield item
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{shard.url}: cannot be read: {one_line(error)}") from error


def _blocks(stream: RetryingStream, start: int, end: int) -> Iterator[bytes]:
    while block := stream.read_at(start, min(max(0, end - start) + BEHIND_BYTES, LARGEST_BLOCK_BYTES)):
        yield block
        start += len(block)


def _from_header(blocks: Iterator[bytes], start: int, begin: int, end: int) -> tuple[int, Iterator[bytes]]:
    """The place of the first header from `begin` on, and the blocks from there; `end` if there is none before it.

    `start` is that of the blocks. Extended headers before `begin` that belong to the first header count as one with it.
    """
    chain = behind = -1
    for block in blocks:
        for at in range(0, min(len(block), end - start), BLOCK):
            found, position = header_at(block, at), start + at
            if found and found[1]:
                chain, behind = chain if position == behind else position, position + BLOCK + found[0]
            if found and (position >= begin or behind >= begin):
                place = chain if behind >= begin else position
                return place, chain_of([block[place - start :]], blocks)
        start += len(block)
        if start >= end:
            break
    return end, blocks
