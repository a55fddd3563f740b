"""An Exif block without anything but its orientation."""

import struct

EXIF = b"Exif\0\0"
"""What begins a block in a JPEG, and in some files of other formats; in some even twice."""


def part(data: bytes, begin: int, size: int, name: str) -> bytes:
    """So many bytes of a file. ValueError with the name of what they belong to if there are fewer."""
    found = data[begin : begin + size]
    if len(found) < size:
        raise ValueError(f"the file ends within {name}")
    return found


_ORIENTATION = 0x0112
_INTEGERS = {3: "HH", 4: "I"}
"""A tag's value in its four bytes, by the tag's type: SHORT and LONG."""


def bare_exif(block: bytes) -> bytes:
    """An Exif block with its orientation alone; empty if that is upright, or cannot be read.

    Byte order and type stay as they are, because not every program takes all. Only the first directory is read, so no
    chain of directories matters.
    """
    tiff = block.removeprefix(EXIF).removeprefix(EXIF)
    prefix, head, order = block[: len(block) - len(tiff)], tiff[:4], "<" if tiff[:2] == b"II" else ">"
    # Some programs take a number that is turned round.
    if head[:2] not in (b"II", b"MM") or head[2:] not in (b"*\0", b"\0*"):
        return b""
    try:
        (begin,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, begin)
    except struct.error:
        return b""
    # A directory that is cut off is read as far as it goes.
    for at in range(begin + 2, min(begin + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", tiff, at)
        if tag == _ORIENTATION and kind in _INTEGERS and number == 1:
            value, *_ = struct.unpack_from(order + _INTEGERS[kind], tiff, at + 8)
            if not 2 <= value <= 8:
                return b""
            cells = struct.pack(order + _INTEGERS[kind], *(value, 0)[: len(_INTEGERS[kind])])
            return prefix + head + struct.pack(f"{order}IHHHI", 8, 1, tag, kind, 1) + cells + bytes(4)
    return b""
