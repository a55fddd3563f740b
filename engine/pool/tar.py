"""A tar as a stream of members, in memory bounded by one of them: every member exactly, or an error that names it.

Reads USTAR, GNU long names and PAX headers. Most readers do not notice a truncation in front of a header, so the end
mark is required here, and only zeros may follow it.
"""

import zlib
from collections.abc import Iterator
from typing import Any

from engine.pool.shard import DamagedShardError

BLOCK = 512
_ZEROS = bytes(BLOCK)
_REGULAR = (b"0", b"\0", b"7")
_FOLDER = b"5"
_PARTIAL = (b"S", b"M")
"""Sparse files, and the rest of a file that begins in another archive."""
_WITHOUT_CONTENT = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe",
    b"V": "a volume label",
}  # fmt: skip
_EXTENDED = (b"L", b"K", b"x", b"g")
_LONGEST_EXTENDED_BYTES = 1 << 20
_MOST_EXTENDED = 8
"""Most extended headers of a member. Writers use up to four: a long name, a long link, local and global PAX records."""
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}


class Archive:
    """An open tar, read from blocks of any size, from byte `begin` on, where a header is.

    Every method raises DamagedShardError.
    """

    def __init__(self, blocks: Iterator[bytes], name: str, total_bytes: int, begin: int = 0) -> None:
        self._blocks, self._name, self._total_bytes = blocks, name, total_bytes
        # `_at` may lie beyond the block: skipped bytes are dropped when the next bytes are read.
        self._block, self._at, self._block_position = next(blocks, b""), 0, begin
        self._start, self._member = self._block[:8], ""

    @property
    def position(self) -> int:
        return self._block_position + self._at

    def error(self, position: int, fault: str) -> DamagedShardError:
        """A fault at a byte. If the archive is compressed, a fault at its first byte says so."""
        packed = [packer for magic, packer in _COMPRESSIONS.items() if self._start.startswith(magic)]
        if position == 0 and packed:
            fault = f"{packed[0]}-compressed; unpack it, because scores locate images by byte ranges of the tar"
        return DamagedShardError(f"{self._name}: byte {position}: {fault}")

    def next_member(self) -> tuple[str, int, str] | None:
        """Name, size in bytes and oddity of the next member, whose content must be read or skipped next.

        The oddity is empty for a regular file with a name in UTF-8, and else says what the member is: it is no item,
        but the archive can be read on. Folders are passed over. None at the end of the whole archive.
        """
        extended: dict[str, Any] = {}
        num_extended = 0
        while True:
            start = self.position
            header = self._take(BLOCK, "a header or the end mark")
            if header == _ZEROS:
                self._read_end(start, num_extended)
                return None
            try:
                plain_name, plain_size, kind = _parse_header(header)
            except ValueError as error:
                raise self.error(start, f"not a tar header ({error})") from error
            if kind in _EXTENDED:
                num_extended += 1
                if num_extended > _MOST_EXTENDED:
                    raise self.error(start, f"more than {_MOST_EXTENDED} extended headers of one file")
                extended |= self._read_extended(start, plain_size, kind)
                continue
            name, size = extended.get("path", plain_name), extended.get("size", plain_size)
            if kind in _PARTIAL:
                raise self.error(start, f"{name!r} is not a whole file (type {kind!r})")
            if kind in _REGULAR and name.isascii():
                self._member = name
                return name, size, ""
            if kind != _FOLDER:
                self._member = readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                oddity = "" if readable == name else "a file whose name is not UTF-8"
                if kind not in _REGULAR:
                    size = 0 if kind in _WITHOUT_CONTENT else size
                    oddity = _WITHOUT_CONTENT.get(kind, f"a member of type {kind!r}")
                return readable, size, oddity
            extended, num_extended = {}, 0

    def read(self, size_bytes: int) -> bytes:
        """The content of the current member."""
        content = self._take(size_bytes)
        self._at += -size_bytes % BLOCK
        return content

    def skip(self, size_bytes: int, keep: int = 0) -> bytes:
        """Skip the content of the current member. Returns its first `keep` bytes."""
        if size_bytes > self._total_bytes - self.position:
            raise self._cut_off(size_bytes)
        start = self._take(min(keep, size_bytes))
        self._at += size_bytes - len(start) + -size_bytes % BLOCK
        return start

    def _take(self, count: int, what: str = "") -> bytes:
        """The next bytes; errors call them `what`, or else by the current member's name."""
        end = self._at + count
        if end > len(self._block):
            return self._gather(count, what)
        content = self._block[self._at : end]
        self._at = end
        return content

    def _gather(self, count: int, what: str) -> bytes:
        # A damaged header can claim any size: more than the archive holds is not requested.
        if count > self._total_bytes - self.position:
            raise self._cut_off(count, what)
        start, parts, missing = self.position, [], count
        while missing:
            part = self._block[self._at : self._at + missing]
            parts.append(part)
            missing -= len(part)
            self._at += len(part)
            if missing and not self._advance():
                raise self.error(start, f"cut off in {what or repr(self._member)} ({count - missing} of {count} bytes)")
        return b"".join(parts)

    def _advance(self) -> bool:
        """Move to the next block. Returns whether there is one."""
        self._at -= len(self._block)
        self._block_position += len(self._block)
        self._block = next(self._blocks, b"")
        return bool(self._block)

    def _cut_off(self, count: int, what: str = "") -> DamagedShardError:
        has = max(0, self._total_bytes - self.position)
        return self.error(self.position, f"cut off in {what or repr(self._member)} ({has} of {count} bytes)")

    def _read_extended(self, start: int, size_bytes: int, kind: bytes) -> dict[str, Any]:
        """The "path" and "size" of the next member, if an extended header gives them."""
        if size_bytes > _LONGEST_EXTENDED_BYTES:
            raise self.error(start, f"an extended header of {size_bytes} bytes")
        content = self._take(size_bytes, "an extended header")
        self._at += -size_bytes % BLOCK
        try:
            if kind == b"L":
                return {"path": content.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
            # A long link, the other kind, names no member.
            found = _parse_pax(content) if kind in (b"x", b"g") else {}
        except ValueError as error:
            raise self.error(start, f"a damaged extended header ({error})") from error
        if found and kind == b"g":
            raise self.error(start, "an extended header that gives all files one name or size")
        return found

    def _read_end(self, start: int, num_extended: int) -> None:
        if num_extended:
            raise self.error(start, "the end mark where an extended header announces a file")
        if self._take(BLOCK, "the end mark") != _ZEROS:
            raise self.error(start, "half an end mark; the archive is damaged")
        while True:
            if self._block[self._at :].strip(b"\0"):
                raise self.error(self.position, "data after the end mark; join archives by tar -A, not by cat")
            self._at = len(self._block)
            if not self._advance():
                break
        if self.position < self._total_bytes:
            raise self._cut_off(self._total_bytes - self.position, "the padding after the end mark")


def header_at(block: bytes, at: int) -> tuple[int, bool] | None:
    """The size of the member whose header is at a byte of a block, padded, and whether the header is an extended one.

    None if no header is there. Content passes for a header with odds below 1e-9 each 512 bytes.
    """
    header = block[at : at + BLOCK]
    # The checksum's digits, first: that is quick, and content rarely has them.
    if len(header) < BLOCK or not header[148:154].strip(b" \0").isdigit():
        return None
    try:
        _, size, kind = _parse_header(header)
    except ValueError:
        return None
    return size + -size % BLOCK, kind in _EXTENDED


def _parse_header(header: bytes) -> tuple[str, int, bytes]:
    """Name, size in bytes and type of a member. Raises ValueError if this is not a header."""
    # Adler-32's lower half is 1 + the sum of all bytes modulo 65521: the checksum, 10 times as fast as sum(). The
    # checksum's own field counts as 8 spaces.
    field = header[148:156]
    difference = (zlib.adler32(header) & 0xFFFF) - (zlib.adler32(field) & 0xFFFF) + 8 * 32 - _octal(field)
    if difference % 65521:
        raise ValueError("checksum")
    name = header[:100].partition(b"\0")[0]
    if header[345] and header[257:263] == b"ustar\0":
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    if header[124] & 0x80:
        # GNU's base 256: 0x80 and 11 bytes, or 0xff for a negative number.
        size = int.from_bytes(header[125:136], "big")
        if header[124] != 0x80 or size >= 1 << 63:
            raise ValueError("an impossible size")
    else:
        size = _octal(header[124:136].strip(b"\0 ") or b"0")
    return name.decode("utf-8", "surrogateescape"), size, header[156:157]


def _octal(field: bytes) -> int:
    digits = field.strip(b"\0 ")
    # int() would accept signs, underscores and 0o as well.
    if not digits.isdigit():
        raise ValueError(f"{field!r} is not an octal number")
    return int(digits, 8)


def _parse_pax(content: bytes) -> dict[str, Any]:
    """The "path" and "size" in PAX records ("LENGTH KEY=VALUE\\n"), which override the header that follows.

    Raises ValueError if a record is malformed or describes a sparse file.
    """
    found: dict[str, Any] = {}
    start = 0
    while start < len(content):
        space = content.find(b" ", start, start + 20)
        length = _decimal(content[start:space] if space > 0 else b"")
        end = start + length
        if end > len(content):
            raise ValueError("record length")
        key, equals, value = content[space + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ValueError("record without value or end")
        if key == b"path":
            found["path"] = value[:-1].decode("utf-8", "surrogateescape")
        elif key == b"size":
            found["size"] = _decimal(value[:-1])
        elif key.startswith(b"GNU.sparse"):
            raise ValueError("sparse files are not supported")
        start = end
    return found


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 19:
        raise ValueError(f"{digits[:20]!r} is not a length in bytes")
    return int(digits)
