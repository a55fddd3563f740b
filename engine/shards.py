"""The tar reader: every item of a WebDataset shard exactly once, or a named failure; never a short result.

Reads USTAR, GNU long names and PAX headers as a stream, front to back, in memory bounded by one image. Truncation is
invisible to most readers when the cut falls on a header, so the end mark is required, and nothing but zeros after it.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from engine.errors import InputError, one_line
from engine.pool import Shard, open_shard

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp"})
BLOCK = 512
_ZEROS = bytes(BLOCK)
_SAMPLE_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$", re.DOTALL)
_REGULAR = (b"0", b"\0", b"7")
_FOLDER = b"5"
_EXTENDED = (b"L", b"K", b"x", b"g")
_LONGEST_HEADER = 1 << 20


class ShardError(InputError):
    """A shard that cannot be read exactly. The text names the shard, the byte and the fault."""


class Item(NamedTuple):
    """One sample of a shard. `offset` and `size_bytes` locate its image in the archive, `data` is that range.

    `fault` says why there is no single image in the sample; it is empty otherwise. A faulty sample has no data, and
    the offset is that of its first member.
    """

    key: str
    offset: int
    size_bytes: int
    data: bytes
    fault: str


class _Member(NamedTuple):
    name: str
    offset: int
    size_bytes: int
    data: bytes = b""


def read_shard(shard: Shard) -> Iterator[Item]:
    """The items of a shard in archive order.

    Raises:
        ShardError: the shard changed since it was listed, is cut off, damaged, not a tar, or repeats a key. Items
            yielded before are exact, but the shard as a whole is not to be used.
    """
    try:
        with open_shard(shard) as stream:
            yield from read_items(stream, shard.url, shard.size_bytes)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{shard.url}: cannot be read: {one_line(error)}") from error


def read_items(stream: BinaryIO, name: str, total_bytes: int) -> Iterator[Item]:
    """The items of an open archive of `total_bytes` in archive order; `name` is what errors call it.

    Raises:
        ShardError: as `read_shard`.
    """
    seen: set[str] = set()
    key = None
    members: list[tuple[str, _Member]] = []
    for member in _read_members(_Archive(stream, name, total_bytes)):
        match = _SAMPLE_NAME.match(member.name)
        if match is None:
            continue
        member_key, suffix = match.groups()
        if member_key != key:
            if key is not None:
                yield _to_item(key, members)
            if member_key in seen:
                raise ShardError(
                    f"{name}: byte {member.offset}: key {member_key!r} appears again; a sample's files must be adjacent"
                )
            seen.add(member_key)
            key, members = member_key, []
        members.append((suffix.lower(), member))
    if key is not None:
        yield _to_item(key, members)


def _to_item(key: str, members: list[tuple[str, _Member]]) -> Item:
    images = [member for suffix, member in members if suffix in IMAGE_SUFFIXES]
    if len(images) == 1:
        return Item(key, images[0].offset, images[0].size_bytes, images[0].data, "")
    suffixes = ", ".join(suffix for suffix, _ in members)
    return Item(key, members[0][1].offset, 0, b"", f"{len(images)} images in the sample, expected 1 ({suffixes})")


class _Archive:
    """A stream that knows its position and never returns less than was asked for."""

    def __init__(self, stream: BinaryIO, name: str, total_bytes: int) -> None:
        self.stream, self.name, self.total_bytes, self.position = stream, name, total_bytes, 0

    def error(self, position: int, fault: str) -> ShardError:
        return ShardError(f"{self.name}: byte {position}: {fault}")

    def read(self, count: int, what: str) -> bytes:
        # A damaged header can claim any size: what the archive cannot hold is not asked for.
        content = self.stream.read(min(count, max(0, self.total_bytes - self.position)))
        if len(content) != count:
            packed = self.position == 0 and _compression(content)
            fault = f"{packed}; unpack it" if packed else f"cut off in {what} ({len(content)} of {count} bytes)"
            raise self.error(self.position, fault)
        self.position += count
        return content

    def read_padded(self, count: int, what: str) -> bytes:
        return self.read(-(-count // BLOCK) * BLOCK, what)[:count]

    def read_header(self) -> tuple[str, int, bytes] | None:
        """Name, size in bytes and type of the next member; None at the end mark."""
        start = self.position
        header = self.read(BLOCK, "a header or the end mark")
        if header == _ZEROS:
            if self.read(BLOCK, "the end mark") != _ZEROS:
                raise self.error(start, "half an end mark; the archive is damaged")
            return None
        try:
            return _parse_header(header)
        except ValueError as error:
            what = _compression(header) if start == 0 else None
            raise self.error(start, f"{what}; unpack it" if what else f"not a tar header ({error})") from error

    def expect_only_zeros(self) -> None:
        while rest := self.stream.read(1 << 20):
            if rest.strip(b"\0"):
                raise self.error(self.position, "data after the end mark; archives joined by cat?")
            self.position += len(rest)


def _read_members(archive: _Archive) -> Iterator[_Member]:
    name: str | None = None
    size: int | None = None
    while (header := archive.read_header()) is not None:
        start = archive.position - BLOCK
        plain_name, plain_size, kind = header
        if kind in _EXTENDED:
            if plain_size > _LONGEST_HEADER:
                raise archive.error(start, f"an extended header of {plain_size} bytes")
            content = archive.read_padded(plain_size, "an extended header")
            try:
                if kind == b"L":
                    name = content.rstrip(b"\0").decode()
                elif kind == b"x":
                    name, size = _parse_pax(content, name)
            except ValueError as error:
                raise archive.error(start, f"a damaged extended header ({error})") from error
            continue
        member = _Member(
            name if name is not None else plain_name, archive.position, plain_size if size is None else size
        )
        name = size = None
        if kind == _FOLDER:
            continue
        if kind not in _REGULAR:
            raise archive.error(start, f"{member.name!r} is not a regular file (type {kind!r})")
        yield member._replace(data=archive.read_padded(member.size_bytes, f"{member.name!r}"))
    archive.expect_only_zeros()


def _parse_header(header: bytes) -> tuple[str, int, bytes]:
    """Name, size in bytes and type of a member. Raises ValueError when this is no header."""
    unsigned = sum(header) - sum(header[148:156]) + 8 * 32
    if unsigned != int(header[148:156].rstrip(b"\0 ") or b"-1", 8):
        raise ValueError("checksum")
    if header[124] & 0x80:
        size = int.from_bytes(header[124:136], "big") & ((1 << 95) - 1)
    else:
        size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
    if size < 0:
        raise ValueError("negative size")
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode(), size, header[156:157]


def _parse_pax(content: bytes, name: str | None) -> tuple[str | None, int | None]:
    """Path and size from PAX records ("LENGTH KEY=VALUE\\n"), which count more than the header that follows.

    Raises:
        ValueError: a record is malformed.
    """
    size = None
    while content:
        length_text, _, _ = content.partition(b" ")
        if not length_text.isdigit() or not len(length_text) < int(length_text) <= len(content):
            raise ValueError("record length")
        record, content = content[: int(length_text)], content[int(length_text) :]
        key, equals, value = record[len(length_text) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ValueError("record without value or end")
        if key == b"path":
            name = value[:-1].decode()
        elif key == b"size":
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise ValueError("sparse files are not supported")
    if size is not None and size < 0:
        raise ValueError("negative size")
    return name, size


def _compression(header: bytes) -> str | None:
    magic = {b"\x1f\x8b": "gzip-compressed", b"\x28\xb5\x2f\xfd": "zstd-compressed", b"BZh": "bzip2-compressed"}
    return next((what for start, what in magic.items() if header.startswith(start)), None)
