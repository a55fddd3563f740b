"""Image files without their metadata, and with the same pixels: nothing is decoded or encoded again.

What is not known to decide how a picture looks is dropped: Exif with its place and thumbnail, XMP, IPTC, comments,
second images, unknown segments, and whatever follows the image's end. What decides colours and animation stays as it
is; an ICC profile may name the device that it is for.
"""

import zlib
from collections.abc import Callable, Container, Iterator

from engine.handoff.bare_exif import bare_exif, part
from engine.handoff.bare_jpeg import bare_jpeg
from engine.pool.formats import format_of


def is_strippable(data: bytes) -> bool:
    """Whether metadata can be removed from files of this one's format."""
    form = format_of(data)
    return form is not None and form.name in _STRIP


def stripped(data: bytes) -> bytes:
    """The image file without metadata; again stripped it is the same. A file that is not `is_strippable` as it is.

    An Exif orientation other than upright stays, alone, in a block of the kind that held it: each program shows the
    picture as before. Where a file has several, the first counts. Orientations in XMP, which browsers ignore, go.

    Raises ValueError, in a few words, if the file's structure is damaged or ends before its end marker. Pixels are not
    looked at.
    """
    form = format_of(data)
    return _STRIP[form.name](data) if form is not None and form.name in _STRIP else data


_ANY = range(1 << 31)
_CHUNKS: dict[bytes, Container[int]] = {
    b"IHDR": {13}, b"PLTE": range(3, 769, 3), b"IDAT": _ANY, b"IEND": {0},
    b"tRNS": range(1, 257), b"gAMA": {4}, b"cHRM": {32}, b"sRGB": {1}, b"iCCP": _ANY, b"sBIT": range(1, 5),
    b"bKGD": {1, 2, 6}, b"pHYs": {9}, b"cICP": {4}, b"mDCV": {24}, b"cLLI": {8},
    b"acTL": {8}, b"fcTL": {26}, b"fdAT": _ANY,
}  # fmt: skip
"""A PNG's chunks that stay, with their sizes. Another size is damage in a chunk that every reader needs; programs
ignore others of another size."""
_RAW_EXIF = b"Raw profile type exif"
_MAX_TEXT = 1 << 20


def _png(data: bytes) -> bytes:
    chunks = list(_png_chunks(data))
    if chunks[0][0] != b"IHDR":
        raise ValueError(f"the PNG begins with {chunks[0][0]!r}")
    # Programs look into texts only where there is no Exif.
    holder = next((n for n, (name, _) in enumerate(chunks) if name == b"eXIf"), None)
    if holder is None:
        holder = next((n for n, (name, content) in enumerate(chunks) if _raw_exif(name, content)), None)
    out = [data[:8]]
    for n, (name, content) in enumerate(chunks):
        if len(content) in _CHUNKS.get(name, ()):
            out.append(_png_chunk(name, content))
        elif not name[:1].islower():
            raise ValueError(f"chunk {name!r} of {len(content)} bytes has no place in a PNG")
        elif n == holder and name == b"eXIf" and (exif := bare_exif(content)):
            out.append(_png_chunk(name, exif))
        elif n == holder and (exif := bare_exif(_raw_exif(name, content))):
            text = b"\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())
            out.append(_png_chunk(b"tEXt", _RAW_EXIF + b"\0" + text))
    return b"".join(out)


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return b"".join((len(content).to_bytes(4), name, content, zlib.crc32(content, zlib.crc32(name)).to_bytes(4)))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk up to the end. The checksums of those that stay are checked."""
    name, end = b"", 8
    while name != b"IEND":
        size, name = int.from_bytes(part(data, end, 4, "a PNG chunk")), part(data, end + 4, 4, "a PNG chunk")
        content = part(data, end + 8, size, f"chunk {name!r}")
        checksum, end = int.from_bytes(part(data, end + 8 + size, 4, f"chunk {name!r}")), end + size + 12
        if name in _CHUNKS and checksum != zlib.crc32(content, zlib.crc32(name)):
            raise ValueError(f"chunk {name!r} has a wrong checksum")
        yield name, content


def _raw_exif(name: bytes, content: bytes) -> bytes:
    """The Exif block that a PNG's text holds as hexadecimal digits; empty if there is none."""
    if name not in (b"tEXt", b"zTXt", b"iTXt") or not content.startswith(_RAW_EXIF + b"\0"):
        return b""
    text = content[len(_RAW_EXIF) + 1 :]
    is_packed = name == b"zTXt" or (name == b"iTXt" and text[:1] == b"\1")
    if name != b"tEXt":
        text = text[1:] if name == b"zTXt" else text[2:].split(b"\0", 2)[-1]
    try:
        if is_packed:
            text = zlib.decompressobj().decompress(text, _MAX_TEXT)
        # A blank line, the name and the length come first.
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("latin-1"))
    except (ValueError, zlib.error):
        return b""


_HAS_EXIF, _STAYING_FLAGS = 0x08, 0x32
_BITMAPS = (b"ALPH", b"VP8 ", b"VP8L")


def _webp(data: bytes) -> bytes:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ValueError("the WebP is shorter than it says")
    chunks = list(_riff_chunks(data, 12, end))
    first = chunks[0][0] if chunks else b""
    if first in (b"VP8 ", b"VP8L"):
        # The simple format: one image, and readers look no further.
        chunks = chunks[:1]
    elif first == b"VP8X":
        chunks = list(_extended(chunks))
    else:
        raise ValueError(f"the WebP begins with {first!r}")
    return _riff_chunk(b"RIFF", b"WEBP" + b"".join(_riff_chunk(*chunk) for chunk in chunks))


def _extended(chunks: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that stay of a WebP's extended format. Readers find Exif only if the header's flag says so."""
    header = chunks[0][1]
    if len(header) != 10:
        raise ValueError(f"the WebP's header has {len(header)} bytes")
    holder = next((n for n, (name, _) in enumerate(chunks) if name == b"EXIF" and header[0] & _HAS_EXIF), 0)
    exif = bare_exif(chunks[holder][1]) if holder else b""
    yield b"VP8X", bytes((header[0] & _STAYING_FLAGS | (_HAS_EXIF if exif else 0), 0, 0, 0)) + header[4:]
    for n, (name, content) in enumerate(chunks):
        if name in (b"ICCP", *_BITMAPS):
            yield name, content
        elif name == b"ANIM":
            yield name, part(content, 0, 6, "ANIM")
        elif name == b"ANMF":
            inner = [chunk for chunk in _riff_chunks(content, 16, len(content)) if chunk[0] in _BITMAPS]
            yield name, part(content, 0, 16, "ANMF") + b"".join(_riff_chunk(*chunk) for chunk in inner)
        elif n == holder and exif:
            yield name, exif


def _riff_chunk(name: bytes, content: bytes) -> bytes:
    return b"".join((name, len(content).to_bytes(4, "little"), content, bytes(len(content) % 2)))


def _riff_chunks(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk. The last one's padding may be missing."""
    while begin < end:
        head = part(data, begin, 8, "a WebP chunk")
        size = int.from_bytes(head[4:], "little")
        if begin + 8 + size > end:
            raise ValueError(f"the file ends within chunk {head[:4]!r}")
        yield head[:4], data[begin + 8 : begin + 8 + size]
        begin += 8 + size + size % 2


_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def _gif(data: bytes) -> bytes:
    end = 13 + _colour_table(part(data, 10, 1, "the header"))
    out = [part(data, 0, end, "the header")]
    while (kind := part(data, end, 1, "the GIF")) != b";":
        begin = end
        if kind == b",":
            end += 11 + _colour_table(part(data, begin + 9, 1, "an image"))
            end = _after_blocks(data, end)
            out.append(data[begin:end])
        elif kind == b"!":
            end = _after_blocks(data, begin + 2)
            out.append(_extension(data[begin:end]))
        elif kind == b"\0":
            # Some encoders end a list of blocks twice.
            end += 1
        else:
            raise ValueError(f"block {kind!r} has no place in a GIF")
    return b"".join([*out, b";"])


def _colour_table(flags: bytes) -> int:
    """Bytes of the colour table that the flags announce."""
    return 6 << (flags[0] & 7) if flags[0] & 0x80 else 0


def _after_blocks(data: bytes, begin: int) -> int:
    """The end of a list of blocks, each with its size before it."""
    try:
        while size := data[begin]:
            begin += 1 + size
    except IndexError:
        raise ValueError("the file ends within a GIF block") from None
    return begin + 1


def _extension(block: bytes) -> bytes:
    """A GIF's extension if it is one for the timing of an animation, without further blocks; else nothing."""
    if block[1] == 0xF9 and block[2] >= 4:
        return block[:2] + b"\4" + block[3:7] + b"\0"
    if block[1] == 0xFF and block[2] == 11 and block[3:14] in _LOOPS and block[14] >= 3 and block[15] == 1:
        return block[:14] + b"\3" + block[15:18] + b"\0"
    return b""


_STRIP: dict[str, Callable[[bytes], bytes]] = {"JPEG": bare_jpeg, "PNG": _png, "WebP": _webp, "GIF": _gif}
