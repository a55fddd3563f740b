"""Metadata in odd places of WebP and GIF files, whose pieces are chunks and blocks."""

import io
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.handoff.stripping import stripped
from tests.engine.handoff.test_stripping import ICC, SECRET, WIDE, XMP, check, exif_of, exifs
from tests.engine.pool.test_images import encode

MOVING: dict[str, Any] = {"save_all": True, "append_images": [WIDE.rotate(90)], "duration": [50, 60], "loop": 3}
SIMPLE = encode(WIDE, "WEBP")
EXTENDED = encode(WIDE, "WEBP", icc_profile=ICC)
ANIMATED = encode(WIDE, "WEBP", **MOVING)
HAS_XMP, HAS_EXIF = 4, 8
GIF = encode(WIDE, "GIF", **MOVING)
Chunks = list[tuple[bytes, bytes]]


def chunks(data: bytes, begin: int = 12) -> Chunks:
    found = []
    while begin < len(data):
        size = int.from_bytes(data[begin + 4 : begin + 8], "little")
        found.append((data[begin : begin + 4], data[begin + 8 : begin + 8 + size]))
        begin += 8 + size + size % 2
    return found


def packed(pieces: Chunks, padding: bytes = b"\0") -> bytes:
    one = (name + len(piece).to_bytes(4, "little") + piece + padding * (len(piece) % 2) for name, piece in pieces)
    return b"".join(one)


def webp(pieces: Chunks, padding: bytes = b"\0", flags: int = 0) -> bytes:
    """A WebP of these chunks, with further flags in its header."""
    if flags:
        name, header = pieces[0]
        pieces = [(name, bytes((header[0] | flags,)) + header[1:]), *pieces[1:]]
    body = b"WEBP" + packed(pieces, padding)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


METADATA = [(b"XMP ", XMP), (b"EXIF", exif_of(1)), (b"SECR", SECRET), (b"\0\0\0\0", SECRET), (b"exif", exif_of(6))]


@pytest.mark.parametrize("plain", [EXTENDED, ANIMATED])
@settings(deadline=None)
@given(chosen=st.randoms(use_true_random=False))
def test_chunks_anywhere_in_a_webp(plain: bytes, chosen: random.Random) -> None:
    mixed = [piece for kept in chunks(plain) for piece in (kept, *chosen.choices(METADATA, k=chosen.randrange(3)))]
    assert check(webp(mixed, b"J", HAS_XMP | HAS_EXIF)) == plain


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"])
@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("plain", [EXTENDED, ANIMATED])
def test_the_first_exif_of_a_webp_counts_with_any_padding(plain: bytes, extra: int, prefix: bytes) -> None:
    exif = prefix + exif_of(6)[6:] + bytes(extra)
    data = webp([*chunks(plain), (b"EXIF", exif), (b"EXIF", exif_of(3)), (b"XMP ", XMP)], b"J", HAS_EXIF)
    bare = check(data)
    assert exifs(bare) == {0x0112: 6}
    assert chunks(bare)[0][1][0] == chunks(plain)[0][1][0] | HAS_EXIF
    assert len(bare) == len(plain) + 8 + len(prefix) + 26


def test_the_padding_of_the_last_chunk_may_be_missing() -> None:
    data = webp([*chunks(EXTENDED), (b"EXIF", exif_of(6) + bytes(1))], b"", HAS_EXIF)
    assert len(data) % 2
    assert exifs(stripped(data)) == {0x0112: 6}


def test_exif_that_no_reader_finds_goes() -> None:
    """Readers look for chunks that the header's flags announce, and in the simple format for none."""
    assert check(webp([*chunks(EXTENDED), (b"EXIF", exif_of(6))])) == EXTENDED
    assert check(webp([*chunks(SIMPLE), (b"EXIF", exif_of(6)), (b"XMP ", XMP)])) == SIMPLE


def test_a_header_s_unused_bits_go() -> None:
    name, header = chunks(EXTENDED)[0]
    data = webp([(name, bytes((header[0] | 0xC1,)) + b"Jan" + header[4:]), *chunks(EXTENDED)[1:]])
    assert stripped(data) == EXTENDED


def test_chunks_within_a_webp_s_frames_go() -> None:
    mixed: Chunks = []
    for name, content in chunks(ANIMATED):
        inner = packed([*chunks(content, 16), (b"EXIF", exif_of(6)), (b"SECR", SECRET)], b"J")
        is_frame, tail = name == b"ANMF", SECRET if name == b"ANIM" else b""
        mixed.append((name, content[:16] + inner if is_frame else content + tail))
    assert check(webp(mixed)) == ANIMATED


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (SIMPLE[:-2], "the WebP is shorter than it says"),
        (b"RIFF\4\0\0\0WEBP", "the WebP begins with b''"),
        (webp([(b"EXIF", SECRET), *chunks(SIMPLE)]), "the WebP begins with b'EXIF'"),
        (webp([(b"VP8X", bytes(9)), *chunks(SIMPLE)]), "the WebP's header has 9 bytes"),
        (webp([*chunks(ANIMATED), (b"ANIM", b"12345")]), "the file ends within ANIM"),
        (webp([*chunks(ANIMATED), (b"ANMF", bytes(15))]), "the file ends within ANMF"),
        (b"RIFF" + (len(EXTENDED) - 10).to_bytes(4, "little") + EXTENDED[8:], "the file ends within chunk b'VP8 '"),
    ],
)
def test_damaged_webps_are_refused(damage: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        stripped(damage)


def extension(label: int, *blocks: bytes) -> bytes:
    return b"!" + bytes((label,)) + b"".join(bytes((len(block),)) + block for block in (*blocks, b""))


GIF_METADATA = [
    extension(0xFE, SECRET, b"\0" * 255, SECRET), extension(0xFE), extension(0x01, bytes(12), SECRET),
    extension(0xFF, b"XMP DataXMP", XMP), extension(0xFF, b"ICCRGBG1012", SECRET), extension(0xCE, SECRET),
    # XMP as it is usually written: no blocks, but a tail in which each reader finds an end.
    b"!\xff\x0bXMP DataXMP" + XMP + b"\1" + bytes(range(255, -1, -1)) + b"\0",
    extension(0xFF, b"NETSCAPE2.0", b"\2" + SECRET), extension(0xFF, SECRET), b"\0",
    extension(0xFF, b"NETSCAPE2.0", b"\1\0", SECRET),
]  # fmt: skip


def places(data: bytes) -> list[int]:
    """Where a GIF's blocks begin."""
    at, found = 13 + (6 << (data[10] & 7) if data[10] & 0x80 else 0), []
    while data[at] != 0x3B:
        found.append(at)
        at += (11 + (6 << (data[at + 9] & 7) if data[at + 9] & 0x80 else 0)) if data[at] == 0x2C else 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    return [*found, at]


@settings(deadline=None)
@given(chosen=st.randoms(use_true_random=False))
def test_extensions_anywhere_in_a_gif(chosen: random.Random) -> None:
    data = GIF
    for at in sorted(chosen.choices(places(GIF), k=5), reverse=True):
        data = data[:at] + chosen.choice(GIF_METADATA) + data[at:]
    assert check(data, b"XMP", b"ICCRGB") == GIF


@pytest.mark.parametrize("name", [b"NETSCAPE2.0", b"ANIMEXTS1.0"])
def test_a_gif_s_loop_stays_without_what_follows_it(name: bytes) -> None:
    begin = GIF.index(b"!\xff")
    loop, size = extension(0xFF, name, b"\1\3\0"), 19
    expected = GIF[:begin] + loop + GIF[begin + size :]
    longer = extension(0xFF, name, b"\1\3\0" + SECRET, SECRET)
    assert check(GIF[:begin] + longer + GIF[begin + size :]) == expected
    assert Image.open(io.BytesIO(expected)).info.get("loop") == (3 if name == b"NETSCAPE2.0" else None)


def test_the_timing_of_a_gif_stays_without_what_follows_it() -> None:
    begin = GIF.index(b"!\xf9")
    longer = extension(0xF9, GIF[begin + 3 : begin + 7] + SECRET, SECRET)
    assert check(GIF[:begin] + longer + GIF[begin + 8 :]) == GIF


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (GIF[:-1], "the file ends within the GIF"),
        (GIF[:-1] + b"J;", "block b'J' has no place in a GIF"),
        (GIF[:-1] + b"!\xfe\x7f" + SECRET, "the file ends within a GIF block"),
        (GIF[:12], "the file ends within the header"),
    ],
)
def test_damaged_gifs_are_refused(damage: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        stripped(damage)
