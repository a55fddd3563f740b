"""The items of a WebDataset shard: each exactly once, or a named failure; never a short result.

A shard is read front to back, in memory bounded by one image and a few blocks. What is no image is never held.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from engine.config.options import ImageConfig
from engine.errors import one_line
from engine.pool.shard import Shard, ShardError, check_unchanged, open_shard
from engine.pool.tar import Archive
from engine.storage.location import Location
from engine.storage.retries import RetryingStream

BLOCK_BYTES = 1 << 20
"""Read at a time from a disk, and at first from an object store, of which often a few items are wanted."""
LARGEST_BLOCK_BYTES = 4 << 20
"""Read at a time from an object store, up to which the blocks double: a request takes tens of milliseconds."""
BLOCKS_AHEAD = 2
_MOST_NAMED = 10
"""So many of a sample's suffixes are named where there are many."""


class Item(NamedTuple):
    """One sample of a shard. `offset` and `size_bytes` locate its image in the archive, `data` is that range.

    `error` is the class of what is wrong with the sample, and `fault` tells it in words; both are empty otherwise, and
    a faulty sample has no data. "NotOneImage": `offset` is that of the first member, `size_bytes` is 0. "TooManyBytes":
    the image is larger than image.max_bytes.
    """

    key: str
    offset: int
    size_bytes: int
    data: bytes
    fault: str
    error: str = ""


def read_shard(shard: Shard, image: ImageConfig) -> Iterator[Item]:
    """The items of a shard in archive order. Transient errors of the storage are retried.

    Raises:
        ShardError: the shard changed since it was listed or while it was read, is cut off, damaged, not a tar, repeats
            a key, or could not be read in all of the tries. Items yielded before are exact if the shard is unchanged,
            but it is not to be used as a whole.
    """
    try:
        with closing(open_shard(shard)) as stream:
            blocks = _blocks(stream) if Location(shard.url).is_local else _blocks_ahead(stream)
            with closing(blocks):
                yield from _read_items(Archive(blocks, shard.url, shard.size_bytes), image)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{shard.url}: cannot be read: {one_line(error)}") from error
    except ShardError:
        # If the shard was overwritten meanwhile, that is the fault to tell.
        check_unchanged(shard)
        raise
    check_unchanged(shard)


def read_items(stream: BinaryIO, name: str, total_bytes: int, image: ImageConfig) -> Iterator[Item]:
    """The items of an open archive of `total_bytes` in archive order; `name` is what errors call it.

    Raises:
        ShardError: the archive is cut off, damaged, not a tar, or repeats a key.
    """
    return _read_items(Archive(_blocks(stream), name, total_bytes), image)


def _blocks(stream: BinaryIO | RetryingStream) -> Generator[bytes]:
    while block := stream.read(BLOCK_BYTES):
        yield block


def _blocks_ahead(stream: RetryingStream) -> Generator[bytes]:
    """The stream's blocks, read by a thread of their own that ends with the iteration."""
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


def _read_items(archive: Archive, image: ImageConfig) -> Iterator[Item]:
    suffixes = frozenset(suffix.lower().removeprefix(".") for suffix in image.suffixes)
    max_bytes = image.max_bytes
    seen: set[str] = set()
    sample: _Sample | None = None
    while (member := archive.next_member()) is not None:
        name, size_bytes = member
        begin = name.rfind("/") + 1
        dot = name.find(".", begin)
        if dot <= begin:
            # Without a dot, or hidden: such files belong to no sample.
            archive.skip(size_bytes)
            continue
        key = name[:dot]
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample.to_item(max_bytes)
            if key in seen:
                raise archive.error(archive.position, f"key {key!r} appears again; a sample's files must be adjacent")
            seen.add(key)
            sample = _Sample(key, archive.position)
        suffix = name[dot + 1 :].lower()
        if suffix in suffixes:
            sample.add_image(archive, suffix, size_bytes, max_bytes)
        else:
            sample.add(archive, suffix, size_bytes)
    if sample is not None:
        yield sample.to_item(max_bytes)


class _Sample:
    """A sample while its members come in."""

    __slots__ = ("data", "key", "num_images", "num_members", "offset", "size_bytes", "start", "suffixes")

    def __init__(self, key: str, start: int) -> None:
        self.key, self.start = key, start
        self.num_members = self.num_images = self.offset = self.size_bytes = 0
        self.suffixes: list[str] = []
        self.data: bytes | None = None

    def add(self, archive: Archive, suffix: str, size_bytes: int) -> None:
        """Leave out a member that is no image."""
        self._name(suffix)
        archive.skip(size_bytes)

    def add_image(self, archive: Archive, suffix: str, size_bytes: int, max_bytes: int) -> None:
        """Read an image, unless it is too large or not the first."""
        self._name(suffix)
        self.num_images += 1
        if self.num_images == 1:
            self.offset, self.size_bytes = archive.position, size_bytes
            if size_bytes <= max_bytes:
                self.data = archive.read(size_bytes)
                return
        self.data = None
        archive.skip(size_bytes)

    def _name(self, suffix: str) -> None:
        self.num_members += 1
        if len(self.suffixes) < _MOST_NAMED:
            self.suffixes.append(suffix)

    def to_item(self, max_bytes: int) -> Item:
        if self.data is not None:
            return Item(self.key, self.offset, self.size_bytes, self.data, "")
        if self.num_images == 1:
            fault = f"an image of {self.size_bytes} bytes, more than image.max_bytes={max_bytes}"
            return Item(self.key, self.offset, self.size_bytes, b"", fault, "TooManyBytes")
        rest = ", ..." if self.num_members > _MOST_NAMED else ""
        fault = f"{self.num_images} images in the sample, expected 1 ({', '.join(self.suffixes)}{rest})"
        return Item(self.key, self.start, 0, b"", fault, "NotOneImage")
