"""A few neighbouring items of a shard, read without what is before them."""

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import chain as chain_of

from engine.config.input_options import ImageConfig
from engine.pool.items import LARGEST_BLOCK_BYTES, read_items
from engine.pool.samples import OUTSIDE_SAMPLES, Item
from engine.pool.shard import DamagedShardError, Shard, open_in_any_order, open_shard, reading
from engine.pool.tar import BLOCK, Archive, header_at
from engine.storage.retries import RetryingStream

BEHIND_BYTES = 64 << 10
"""What is read at once behind a run's end, where its last item ends; doubled with each block."""
BEFORE_BYTES = 32 << 10
"""What is looked at before a run's beginning: there may be the extended header of its first file, which holds a long
name, and on a Mac the file's attributes too."""


def read_run(shard: Shard, image: ImageConfig, begin: int, end: int, companion: str = "") -> list[Item]:
    """The samples of bytes `begin` to `end`, multiples of 512. A shard that is cut into runs gives each of them once.

    A run begins behind the sample of the first header at or after `begin` (with it at byte 0), and ends with the sample
    of the first header at or after `end`: so no sample is read in part. Content that is an archive itself misleads a
    run that begins in it: see `holds_archives`.

    Raises ShardError as `engine.pool.items.read_shard` does, but sees no damage in front of the run, and no change
    while it is read.
    """
    try:
        return list(_read(shard, image, begin, end, companion, looks_for_header=begin > 0))
    except DamagedShardError:
        if not begin:
            raise
        # What looked like a header may be content. Only the way from the first byte tells.
        return list(_read(shard, image, begin, end, companion, looks_for_header=False))


def holds_archives(shard: Shard) -> bool:
    """Whether a file in the shard is a tar itself, not compressed. Reads the whole shard.

    Raises ShardError as `engine.pool.items.read_shard` does.
    """
    with reading(shard), closing(open_shard(shard)) as stream:
        archive = Archive(iter(partial(stream.read, LARGEST_BLOCK_BYTES), b""), shard.url, shard.size_bytes)
        while (member := archive.next_member()) is not None:
            if header_at(archive.skip(member[1], BLOCK), 0):
                return True
    return False


def _read(
    shard: Shard, image: ImageConfig, begin: int, end: int, companion: str, *, looks_for_header: bool
) -> Generator[Item]:
    """The samples of a run, read from the shard's first byte on, or from the header that is looked for."""
    start = max(0, begin - BEFORE_BYTES) if looks_for_header else 0
    with reading(shard), closing(open_in_any_order(shard)) as stream:
        first, blocks = start, _blocks(stream, start, end)
        if looks_for_header:
            first, blocks = _from_header(blocks, start, begin, end)
        # Else it is within one large file.
        if first < end:
            archive = Archive(blocks, shard.url, shard.size_bytes, first)
            items = read_items(archive, image, begin, end, companion)
            yield from (item for item in items if item.error not in OUTSIDE_SAMPLES)


def _blocks(stream: RetryingStream, start: int, end: int) -> Iterator[bytes]:
    behind = BEHIND_BYTES
    while block := stream.read_at(start, min(max(0, end - start) + behind, LARGEST_BLOCK_BYTES)):
        yield block
        start += len(block)
        behind *= 2 if start > end else 1


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
