"""The items of a WebDataset shard: each exactly once, or an error that names the shard; never a short result.

A shard is read front to back, in memory bounded by one image and a few blocks. Other files are skipped, not held.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

from engine.config.input_options import ImageConfig
from engine.pool.formats import format_of
from engine.pool.samples import Item, Keys, Sample, Unused, is_image_name
from engine.pool.shard import Shard, check_unchanged, open_shard, reading
from engine.pool.tar import Archive
from engine.storage.location import Location
from engine.storage.retries import RetryingStream

BLOCK_BYTES = 1 << 20
"""Block of a disk, and first block of an object store, from which often only a few items are read."""
LARGEST_BLOCK_BYTES = 4 << 20
"""Blocks of an object store double up to this, because a request takes tens of milliseconds."""
BLOCKS_AHEAD = 2
_MAGIC_BYTES = 16


def read_shard(shard: Shard, image: ImageConfig, companion: str = "") -> Generator[Item, None, Unused]:
    """The items of a shard in archive order; returns what is in none, see `read_items`. Transient errors are retried.

    Raises ShardError if the shard changed since it was listed or while it was read, is cut off, damaged, not a tar,
    repeats a key, or could not be read in any try. Items yielded before are exact if the shard is unchanged, but the
    shard must not be used as a whole.
    """
    with reading(shard), closing(open_shard(shard)) as stream:
        blocks = _blocks(stream) if Location(shard.url).is_local else _blocks_ahead(stream)
        with closing(blocks):
            unused = yield from read_items(Archive(blocks, shard.url, shard.size_bytes), image, companion=companion)
    check_unchanged(shard)
    return unused


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


def read_items(
    archive: Archive, image: ImageConfig, begin: int = 0, end: int | None = None, companion: str = ""
) -> Generator[Item, None, Unused]:
    """The items of an archive, in order. Returns what belongs to none.

    Every file that looks like an image, by its suffix or where it has none by its content, is an item, the companion of
    one, or listed with its fault. With `end`, the first sample that has a file behind byte `end` is the last; with
    `begin`, those up to the first that has a file behind byte `begin` are left out. An item also holds the sample's
    files with the suffix `companion`, lower case. Raises ShardError if the archive is cut off, damaged, not a tar or
    repeats a key.
    """
    suffixes = frozenset(suffix.lower().removeprefix(".") for suffix in image.suffixes)
    unused, keys = Unused(), Keys(archive)
    sample: Sample | None = None
    is_wanted, is_behind_begin, is_last = not begin, False, False
    while (member := archive.next_member()) is not None:
        name, size_bytes, oddity = member
        start = name.rfind("/") + 1
        dot = name.find(".", start)
        key = name[:dot]
        if oddity or dot <= start or (key.startswith("__", start) and key.endswith("__")):
            position, content = archive.position, archive.skip(size_bytes, _MAGIC_BYTES)
            if fault := _lost(name[start:], content, oddity):
                yield Item(_key_of_lost(name), position, 0, b"", fault, "NotAnImageFile" if oddity else "NoSuffix")
            elif not name.startswith("__", start):
                unused.add(name, size_bytes)
            continue
        if sample is None or key != sample.key:
            if sample is not None and is_wanted:
                yield from sample.to_items(image.max_bytes)
            if is_last:
                return unused
            keys.add(key)
            sample = Sample(key, archive.position, companion)
            is_wanted = is_wanted or is_behind_begin
        is_behind_begin = is_behind_begin or archive.position > begin
        is_last = is_last or (end is not None and archive.position > end)
        suffix = name[dot + 1 :].lower()
        sample.add(archive, suffix, size_bytes, image.max_bytes if suffix in suffixes else None)
    if sample is not None and is_wanted:
        yield from sample.to_items(image.max_bytes)
    keys.check()
    return unused


def _lost(name: str, content: bytes, oddity: str) -> str:
    """Why a file that looks like an image is none; empty for a file that does not look like one."""
    if oddity:
        return f"{oddity}; put the image itself into the shard" if is_image_name(name) else ""
    form = format_of(content)
    if not form:
        return ""
    if "." not in name:
        return f"a {form.name} file without a suffix; rename it to end in .{form.suffixes[0]}"
    what = "whose name begins with a dot" if name.startswith(".") else "with the name of metadata (__NAME__)"
    return f"a {form.name} file {what}; rename it"


def _key_of_lost(name: str) -> str:
    """A key that no sample can have: a sample's key has no dot in its last part."""
    return name if "." in name[name.rfind("/") + 1 :] else f"{name}."
