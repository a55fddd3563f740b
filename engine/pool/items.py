"""The items of a WebDataset shard: each exactly once, or an error that names the shard; never a short result.

A shard is read front to back, in memory bounded by one image and a few blocks. Other files are skipped, not held.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import pyarrow as pa

from engine.config.options import ImageConfig
from engine.errors import one_line
from engine.pool.shard import Shard, ShardError, check_unchanged, open_shard
from engine.pool.tar import Archive
from engine.storage.location import Location
from engine.storage.retries import RetryingStream

BLOCK_BYTES = 1 << 20
"""Block of a disk, and first block of an object store, from which often only a few items are read."""
LARGEST_BLOCK_BYTES = 4 << 20
"""Blocks of an object store double up to this, because a request takes tens of milliseconds."""
BLOCKS_AHEAD = 2
_MOST_NAMED = 10
"""Most suffixes of a sample that an error names."""


class Item(NamedTuple):
    """One sample of a shard. `offset` and `size_bytes` locate its image in the archive, `data` is that range.

    A faulty sample has no data; `error` is its class of error and `fault` describes it, both empty otherwise.
    "NotOneImage": `offset` is that of the first member, `size_bytes` is 0. "TooManyBytes": the image is larger than
    image.max_bytes.
    """

    key: str
    offset: int
    size_bytes: int
    data: bytes
    fault: str
    error: str = ""


def read_shard(shard: Shard, image: ImageConfig) -> Iterator[Item]:
    """The items of a shard in archive order. Transient storage errors are retried.

    Raises ShardError if the shard changed since it was listed or while it was read, is cut off, damaged, not a tar,
    repeats a key, or could not be read in any try. Items yielded before are exact if the shard is unchanged, but the
    shard must not be used as a whole.
    """
    try:
        with closing(open_shard(shard)) as stream:
            blocks = _blocks(stream) if Location(shard.url).is_local else _blocks_ahead(stream)
            with closing(blocks):
                yield from read_items(Archive(blocks, shard.url, shard.size_bytes), image)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{shard.url}: cannot be read: {one_line(error)}") from error
    except ShardError:
        # If the shard was overwritten meanwhile, that is the error to report.
        check_unchanged(shard)
        raise
    check_unchanged(shard)


def _blocks(stream: RetryingStream) -> Generator[bytes]:
    while block := stream.read(BLOCK_BYTES):
        yield block


def _blocks_ahead(stream: RetryingStream) -> Generator[bytes]:
    """The stream's blocks, read ahead by a thread that ends with the iteration."""
    count = BLOCK_BYTES
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(1) as thread:
        try:
            while True:
                while len(pending) <= BLOCKS_AHEAD:
                    pending.append(thread.submit(stream.read, count))
                    count = min(2 * count, LARGEST_BLOCK_BYTES)
                block = pending.popleft().result()
                if not block:
                    return
                yield block
        finally:
            for future in pending:
                future.cancel()
            stream.interrupt()


def read_items(archive: Archive, image: ImageConfig) -> Iterator[Item]:
    """The items of an archive, in order. Raises ShardError if it is cut off, damaged, not a tar or repeats a key."""
    suffixes = frozenset(suffix.lower().removeprefix(".") for suffix in image.suffixes)
    seen: set[str] = set()
    sample: _Sample | None = None
    while (member := archive.next_member()) is not None:
        name, size_bytes = member
        begin = name.rfind("/") + 1
        dot = name.find(".", begin)
        if dot <= begin:
            # Files without a dot and hidden files belong to no sample.
            archive.skip(size_bytes)
            continue
        key = name[:dot]
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample.to_item(image.max_bytes)
            if key in seen:
                raise archive.error(archive.position, f"key {key!r} appears again; a sample's files must be adjacent")
            seen.add(key)
            sample = _Sample(key, archive.position)
        suffix = name[dot + 1 :].lower()
        sample.add(archive, suffix, size_bytes, image.max_bytes if suffix in suffixes else None)
    if sample is not None:
        yield sample.to_item(image.max_bytes)


class _Sample:
    """A sample while its members are read."""

    __slots__ = ("data", "key", "num_images", "num_members", "offset", "size_bytes", "start", "suffixes")

    def __init__(self, key: str, start: int) -> None:
        self.key, self.start = key, start
        self.num_members = self.num_images = self.offset = self.size_bytes = 0
        self.suffixes: list[str] = []
        self.data: bytes | None = None

    def add(self, archive: Archive, suffix: str, size_bytes: int, max_bytes: int | None) -> None:
        """Read the first image of up to `max_bytes`; skip all else. `max_bytes` is None for other files."""
        self.num_members += 1
        if len(self.suffixes) < _MOST_NAMED:
            self.suffixes.append(suffix)
        if max_bytes is not None:
            self.num_images += 1
            self.data = None
            if self.num_images == 1:
                self.offset, self.size_bytes = archive.position, size_bytes
                if size_bytes <= max_bytes:
                    self.data = archive.read(size_bytes)
                    return
        archive.skip(size_bytes)

    def to_item(self, max_bytes: int) -> Item:
        if self.data is not None:
            return Item(self.key, self.offset, self.size_bytes, self.data, "")
        if self.num_images == 1:
            fault = f"an image of {self.size_bytes} bytes, more than image.max_bytes={max_bytes}"
            return Item(self.key, self.offset, self.size_bytes, b"", fault, "TooManyBytes")
        rest = ", ..." if self.num_members > _MOST_NAMED else ""
        fault = f"{self.num_images} images in the sample, expected 1 ({', '.join(self.suffixes)}{rest})"
        return Item(self.key, self.start, 0, b"", fault, "NotOneImage")
