"""A shard of the pool and its bytes: those of the listed file, or an error that names it."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from engine.errors import InputError, one_line
from engine.storage.location import Location
from engine.storage.retries import RetryingStream, retried


class ShardError(InputError):
    """A shard that cannot be read exactly. The text names the shard, the byte and the fault."""


class Shard(NamedTuple):
    """A row of pool/shards.parquet. `num_items` is None until the shard has been scanned."""

    shard: str
    url: str
    size_bytes: int
    etag_or_mtime: str
    num_items: int | None


def etag_or_mtime(info: fs.FileInfo) -> str:
    """A mark that changes when a file is written again."""
    return f"mtime:{info.mtime_ns}"


def open_shard(shard: Shard) -> RetryingStream:
    """The shard's bytes front to back. Reads raise ShardError if it is not the file that was listed at init."""
    return RetryingStream(lambda position: _open(shard, position), shard.size_bytes)


def read_ranges(shard: Shard, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
    """The bytes at each (offset, size) of a shard, in the order given.

    Raises ShardError if the shard changed since init or while it was read, or cannot be read.
    """
    with closing(RetryingStream(lambda _: _open(shard, 0, in_any_order=True), shard.size_bytes)) as stream:
        for offset, size in ranges:
            try:
                content = stream.read_at(offset, size)
            except (OSError, pa.ArrowException) as error:
                raise ShardError(f"{shard.url}: cannot be read: {one_line(error)}") from error
            if len(content) != size:
                raise ShardError(f"{shard.url}: byte {offset}: {len(content)} of {size} bytes")
            yield content
    check_unchanged(shard)


def check_unchanged(shard: Shard) -> None:
    """Raises ShardError if the shard is gone or its size or time changed since init."""
    try:
        retried(lambda: _check(shard))
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{shard.url}: cannot be looked up: {one_line(error)}") from error


def _open(shard: Shard, position: int, *, in_any_order: bool = False) -> Any:
    _check(shard)
    location = Location(shard.url)
    if not position and not in_any_order:
        # The default would unpack a .gz, and offsets would not be those of the file.
        return location.filesystem.open_input_stream(location.path, compression=None)
    file = location.filesystem.open_input_file(location.path)
    if position:
        file.seek(position)
    return file


def _check(shard: Shard) -> None:
    location = Location(shard.url)
    info = location.filesystem.get_file_info(location.path)
    if info.type != fs.FileType.File:
        raise ShardError(f"{shard.url}: the shard is gone; restore it, then run again")
    if (info.size, etag_or_mtime(info)) != (shard.size_bytes, shard.etag_or_mtime):
        raise ShardError(
            f"{shard.url}: changed since init ({shard.size_bytes} bytes, {shard.etag_or_mtime}; "
            f"now {info.size} bytes, {etag_or_mtime(info)}); restore it, or start a new campaign"
        )
