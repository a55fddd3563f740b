"""A shard of the pool and its bytes: those of the listed file, or an error that names it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from engine.errors import InputError, one_line
from engine.pool.identity import content_hash
from engine.storage.location import Location
from engine.storage.retries import RetryingStream, retried


class ShardError(InputError):
    """A shard that cannot be read exactly. The text names the shard, the byte and the fault."""


class DamagedShardError(ShardError):
    """The bytes of a shard are there, and are no whole archive. Trying again does not help."""


class ChangedShardError(ShardError):
    """A shard whose bytes are not those that are known. `url` is the shard's."""

    def __init__(self, text: str, url: str = "") -> None:
        super().__init__(text)
        self.url = url


class Shard(NamedTuple):
    """A row of pool/shards.parquet. `num_items` is None until the shard has been scanned.

    `mtime_ns` is its time as a listing of its folder shows it; 0 if its bytes must be looked at before they are used.
    `version` names its bytes: it stays where a shard is only copied or touched.
    It is in the pool from round `joined` on, and up to the round before `left`; None where it never left. `why_left` is
    GONE or FORGOTTEN.
    """

    shard: str
    url: str
    size_bytes: int
    etag_or_mtime: str
    num_items: int | None
    mtime_ns: int = 0
    version: str = ""
    joined: int = 0
    left: int | None = None
    why_left: str | None = None

    def is_in(self, number: int) -> bool:
        """Whether the shard is in the pool of a round."""
        return self.joined <= number and (self.left is None or number < self.left)


GONE, FORGOTTEN = "gone", "forgotten"
"""Why a shard left the pool: its file was not there any more, or a person decided it. What is gone may come back."""


class Place(NamedTuple):
    """Where an image is in its shard, and the hash of its bytes; None where an older campaign did not keep it."""

    key: str
    offset: int
    size_bytes: int
    content_hash: str | None


CHANGED = "changed since it was listed"


def mark_of(location: Location, info: fs.FileInfo) -> str:
    """A mark that changes when a file is written again: the store's ETag, or the time of change where it has none."""
    etag = _etag(location) if location.has_etag else ""
    return f"etag:{etag}" if etag else f"mtime:{info.mtime_ns}"


def _etag(location: Location) -> str:
    # One request, in which S3 sends none of the file. A listing does not have the mark.
    with location.filesystem.open_input_stream(location.path, compression=None) as stream:
        found = {name.lower(): value for name, value in stream.metadata().items()}
    return str(found.get("etag", b"").decode()).strip('"')


def current(shard: Shard) -> Shard:
    """The shard with its present size, time and mark. Raises ShardError if it is gone or cannot be looked up."""
    try:
        return retried(lambda: _current(shard))
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{shard.url}: cannot be looked up: {one_line(error)}") from error


def _current(shard: Shard) -> Shard:
    location = Location(shard.url)
    info = location.filesystem.get_file_info(location.path)
    if info.type != fs.FileType.File:
        raise ShardError(f"{shard.url}: the shard is gone; restore it, then run again")
    return shard._replace(size_bytes=info.size, etag_or_mtime=mark_of(location, info), mtime_ns=info.mtime_ns)


@contextmanager
def reading(shard: Shard) -> Iterator[None]:
    """Turns errors of a shard's reads into ShardErrors. If it was overwritten meanwhile, that is the error."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{shard.url}: cannot be read: {one_line(error)}") from error
    except ShardError:
        check_unchanged(shard)
        raise


def open_shard(shard: Shard) -> RetryingStream:
    """The shard's bytes front to back. Reads raise ShardError if it is not the file that was listed."""
    return RetryingStream(lambda position: _open(shard, position), shard.size_bytes)


def open_in_any_order(shard: Shard) -> RetryingStream:
    """As `open_shard`, for `read_at` alone."""
    return RetryingStream(lambda _: _open(shard, 0, in_any_order=True), shard.size_bytes)


def read_ranges(shard: Shard, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
    """The bytes at each (offset, size) of a shard, in the order given.

    Raises ShardError if the shard changed since it was listed, or cannot be read.
    """
    for (offset, size), content in zip(ranges, _read_parts(shard, ranges), strict=True):
        if len(content) != size:
            raise ShardError(f"{shard.url}: byte {offset}: {len(content)} of {size} bytes")
        yield content


def _read_parts(shard: Shard, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
    """As `read_ranges`, but with fewer bytes where the shard ends before a range does."""
    with reading(shard), closing(open_in_any_order(shard)) as stream:
        for offset, size in ranges:
            yield stream.read_at(offset, size)
    check_unchanged(shard)


def read_images(shard: Shard, places: list[Place]) -> Iterator[bytes]:
    """The images at these places of a shard, each the one that its hash names.

    Raises ChangedShardError if other bytes are at a place, and ShardError as `read_ranges` does.
    """
    for place, content in zip(places, read_what_is_left(shard, places), strict=True):
        if content is None:
            why = "has other bytes than those that are known, at the same size and time"
            raise ChangedShardError(
                f"{shard.url}: item {place.key} {why}; run again: the shard is read again then", shard.url
            )
        yield content


def read_what_is_left(shard: Shard, places: list[Place]) -> Iterator[bytes | None]:
    """As `read_images`, with None where other bytes are at a place."""
    for place, content in zip(places, _read_parts(shard, [place[1:3] for place in places]), strict=True):
        is_it = len(content) == place.size_bytes and place.content_hash in (None, content_hash(content))
        yield content if is_it else None


def check_unchanged(shard: Shard) -> None:
    """Raises ShardError if the shard is gone or its size or mark changed since it was listed."""
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
    try:
        # An ETag names the bytes; nothing else of the file need be asked for.
        now = f"etag:{_etag(location)}" if shard.etag_or_mtime.startswith("etag:") else _size_and_time(location)
    except FileNotFoundError as error:
        raise ShardError(f"{shard.url}: the shard is gone; restore it, then run again") from error
    listed = shard.etag_or_mtime if now.startswith("etag:") else f"{shard.size_bytes} bytes, {shard.etag_or_mtime}"
    if now != listed:
        why = f"{CHANGED} ({listed}; now {now}); run again: the shard is read again then"
        raise ChangedShardError(f"{shard.url}: {why}", shard.url)


def _size_and_time(location: Location) -> str:
    info = location.filesystem.get_file_info(location.path)
    if info.type != fs.FileType.File:
        raise FileNotFoundError(location.url)
    return f"{info.size} bytes, mtime:{info.mtime_ns}"
