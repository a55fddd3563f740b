"""A JPEG without its metadata."""

import re
from collections.abc import Iterator

from engine.handoff.bare_exif import EXIF, bare_exif, part

_SOI, _EOI, _SOS, _DNL, _DRI, _COMMENT = 0xD8, 0xD9, 0xDA, 0xDC, 0xDD, 0xFE
_TABLES = {0xC4, 0xCC, 0xDB}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a length, which mean nothing between segments."""
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_END_OF_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""Where libjpeg gives a scan up. Restart markers and invalid ones are within it, as are stuffed and fill bytes."""
_SCAN = -1


def bare_jpeg(data: bytes) -> bytes:
    """The JPEG without metadata, as `stripped` describes it."""
    out, exif, is_header = [data[:2]], None, True
    for marker, content in _segments(data):
        if marker == _SCAN:
            out.append(content)
            continue
        kept = content
        if marker == _APP1 and is_header and exif is None and content.startswith(EXIF):
            kept = exif = bare_exif(content)
        elif marker >= _APP0:
            kept = _colours(marker, content) if is_header else b""
        else:
            _check_segment(marker, content)
        if kept:
            out += [bytes((0xFF, marker)), (len(kept) + 2).to_bytes(2), kept]
        is_header = is_header and marker != _SOS
    if is_header:
        raise ValueError("a JPEG without a scan")
    return b"".join([*out, b"\xff\xd9"])


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """A JPEG's segments up to its end: marker and content. What follows a scan's header is a segment _SCAN.

    As in libjpeg, stray bytes between segments are skipped; so is what follows a segment in the middle of a scan.
    """
    end = 2
    while True:
        begin = _find(_MARKER, data, end)
        marker, end = data[begin + 1], begin + 2
        if marker == _EOI:
            return
        if marker in _ALONE:
            continue
        name = f"segment {marker:02X}"
        if marker < 0xC0 or marker == _SOI or 0xF0 <= marker < _COMMENT:
            raise ValueError(f"{name} has no place in a JPEG")
        size = int.from_bytes(part(data, end, 2, name))
        yield marker, part(data, end, size, name)[2:]
        end += max(size, 2)
        if marker == _SOS:
            begin, end = end, _find(_END_OF_SCAN, data, end)
            yield _SCAN, data[begin:end]


def _find(pattern: re.Pattern[bytes], data: bytes, begin: int) -> int:
    found = pattern.search(data, begin)
    if found is None:
        raise ValueError("the JPEG has no end marker")
    return found.start()


def _colours(marker: int, content: bytes) -> bytes:
    """What decides colours in an application segment: the start of JFIF's and Adobe's, and ICC profiles."""
    if marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= 14:
        # Its last two bytes are the size of the thumbnail.
        return content[:12] + bytes(2)
    if marker == _APP14 and content.startswith(b"Adobe"):
        return content[:12]
    return content if marker == _APP2 and content.startswith(b"ICC_PROFILE\0") else b""


def _check_segment(marker: int, content: bytes) -> None:
    """Segments that are needed have no room for anything else."""
    size = len(content)
    if marker in _FRAMES:
        size = 6 + 3 * int.from_bytes(content[5:6])
    elif marker == _SOS:
        size = 4 + 2 * int.from_bytes(content[:1])
    elif marker in (_DNL, _DRI):
        size = 2
    elif marker not in _TABLES:
        raise ValueError(f"segment {marker:02X} has no place in a JPEG")
    if size != len(content) or not content:
        raise ValueError(f"segment {marker:02X} has {len(content)} bytes")
