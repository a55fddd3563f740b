"""Metadata in odd places, and files that are damaged on purpose."""

import contextlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.config.input_options import ImageConfig
from engine.handoff.bare_exif import EXIF, bare_exif
from engine.handoff.stripping import stripped
from engine.pool.images import decode
from tests.engine.handoff.test_stripping import (
    EOI,
    ICC,
    SECRET,
    SOS,
    WIDE,
    XMP,
    check,
    exif_of,
    exifs,
    saved,
    segment,
)
from tests.engine.pool.test_images import PROGRESSIVE, RESTARTS, chunk, encode, png

PLAIN = encode(WIDE, "JPEG", icc_profile=ICC)
SLOW = encode(WIDE, "JPEG", **PROGRESSIVE)
ROWS = (b"\0" + bytes(range(24))) * 8
PNG = png(8, 8, ROWS)
AT_CHUNKS = 33
"""Where the first chunk after a PNG's header begins."""
TURNED = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
"""The least Exif that turns a picture."""
JPEG_METADATA = [
    segment(0xE0, b"JFXX\0\x10" + SECRET), segment(0xE0, b"AVI1" + SECRET), segment(0xE1, EXIF + TURNED + SECRET),
    segment(0xE1, exif_of(3)), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
    segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + SECRET), segment(0xE2, b"MPF\0II*\0" + SECRET),
    segment(0xE2, b"FPXR\0" + SECRET), segment(0xED, b"Photoshop 3.0\0" + SECRET), segment(0xEB, b"JP" + SECRET),
    segment(0xFE, SECRET), segment(0xFE, b""), segment(0xEF, SECRET), segment(0xEE, b"Ducky" + SECRET),
]  # fmt: skip
FILL = [b"\xff", b"\xff\xff\xff"]


def inserted(data: bytes, places: list[int], pieces: list[bytes]) -> bytes:
    for place, piece in sorted(zip(places, pieces, strict=False), key=lambda pair: -pair[0]):
        data = data[:place] + piece + data[place:]
    return data


def markers(data: bytes) -> list[int]:
    """Where a segment of metadata can be put in: before each marker with a length, and before the end."""
    places, end = [], 2
    while True:
        end = next(
            at for at in range(end, len(data)) if data[at] == 0xFF and data[at + 1] not in {0, *range(0xD0, 0xD8)}
        )
        places.append(end)
        if data[end : end + 2] == EOI:
            return places
        end += 2 + int.from_bytes(data[end + 2 : end + 4])


@pytest.mark.parametrize("options", [{}, PROGRESSIVE, RESTARTS | PROGRESSIVE])
@settings(deadline=None)
@given(chosen=st.randoms(use_true_random=False), number=st.integers(1, 12))
def test_segments_anywhere_in_a_jpeg(options: dict[str, object], chosen: random.Random, number: int) -> None:
    plain = encode(WIDE, "JPEG", **options)
    places = markers(plain)
    pieces = [chosen.choice(JPEG_METADATA + FILL) for _ in range(number)]
    data = inserted(plain, sorted(chosen.choices(places, k=number)), pieces)
    bare = check(data, b"Ducky", b"JFXX", b"MPF")
    # An Exif block can stay, and fill bytes at the end of a scan.
    assert len(bare) <= len(plain) + 36 + 3 * number


def test_a_jpeg_s_segments_between_scans_go() -> None:
    places = [at for at in markers(SLOW) if at > SLOW.index(SOS)]
    assert len(places) > 8
    late = [segment(0xE1, exif_of(6)), segment(0xE2, b"ICC_PROFILE\0\1\1" + SECRET), segment(0xEE, b"Adobe" + bytes(7))]
    for piece in late:
        assert stripped(inserted(SLOW, places, [piece] * len(places))) == SLOW
    inside = SLOW.index(SOS) + 30
    assert b"\xff\x05" in stripped(inserted(SLOW, [inside], [b"\xff\x05"]))


@pytest.mark.parametrize("options", [{}, PROGRESSIVE, RESTARTS, RESTARTS | PROGRESSIVE])
@settings(deadline=None)
@given(place=st.floats(0, 1), piece=st.sampled_from([*JPEG_METADATA, b"\xff\x05", b"\xff\xd3", EOI, b"\xff\0", *FILL]))
def test_in_the_middle_of_a_scan_everything_is_as_the_decoder_sees_it(
    options: dict[str, object], place: float, piece: bytes
) -> None:
    plain = encode(WIDE, "JPEG", **options)
    begin = plain.index(SOS) + 2 + plain[plain.index(SOS) + 3]
    data = inserted(plain, [begin + int(place * (len(plain) - 2 - begin))], [piece])
    try:
        # Pillow takes what libjpeg only warns about.
        pixels, bare = np.asarray(Image.open(io.BytesIO(data))), stripped(data)
    except (OSError, ValueError):
        return
    assert SECRET not in bare
    assert stripped(bare) == bare
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(bare))), pixels)


def test_the_first_exif_of_a_jpeg_counts() -> None:
    first, second = segment(0xE1, exif_of(6)), segment(0xE1, exif_of(3))
    assert exifs(check(PLAIN[:2] + first + second + PLAIN[2:])) == {0x0112: 6}
    assert check(PLAIN[:2] + segment(0xE1, exif_of(1)) + second + PLAIN[2:]) == PLAIN


def test_thumbnails_and_second_images_go() -> None:
    small = bytes(3 * 4) + SECRET
    thumbnail = segment(0xE0, b"JFIF\0\1\2\1\0\x48\0\x48\2\2" + small)
    bare = check(PLAIN[:2] + thumbnail + PLAIN[2 + 18 :])
    assert bare == PLAIN[:2] + segment(0xE0, b"JFIF\0\1\2\1\0\x48\0\x48\0\0") + PLAIN[2 + 18 :]
    several = encode(WIDE, "MPO", save_all=True, append_images=[WIDE.rotate(90)])
    assert Image.open(io.BytesIO(several)).format == "MPO"
    bare = stripped(several)
    assert Image.open(io.BytesIO(bare)).format == "JPEG"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(bare))), np.asarray(Image.open(io.BytesIO(several))))
    assert bare.count(b"\xff\xd8") == 1


@pytest.mark.parametrize(("mode", "transform"), [("RGB", 0), ("RGB", 1), ("CMYK", 0), ("CMYK", 2)])
def test_the_colours_that_adobe_s_segment_names_stay(mode: str, transform: int) -> None:
    data = encode(WIDE.convert(mode), "JPEG")
    at = data.find(b"\xff\xee")
    bare_data = data[:2] + data[at + 16 :] if at > 0 else data[:2] + data[20:]
    adobe = b"Adobe\0\x64\0\0\0\0" + bytes((transform,))
    expected = bare_data[:2] + segment(0xEE, adobe) + bare_data[2:]
    assert check(bare_data[:2] + segment(0xEE, adobe + SECRET) + bare_data[2:]) == expected


def test_a_colour_profile_in_several_segments_stays() -> None:
    profile = bytes(range(256)) * 600
    data = encode(WIDE, "JPEG", icc_profile=profile)
    assert data.count(b"ICC_PROFILE\0") == 3
    assert check(data[:2] + segment(0xFE, SECRET) + data[2:]) == data


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (PLAIN[:2] + PLAIN[-2:], "a JPEG without a scan"),
        (PLAIN[:2] + PLAIN, "segment D8 has no place in a JPEG"),
        (PLAIN[:2] + segment(0xF7, SECRET) + PLAIN[2:], "segment F7 has no place in a JPEG"),
        (PLAIN[:2] + segment(0xDE, SECRET) + PLAIN[2:], "segment DE has no place in a JPEG"),
        (PLAIN[:2] + segment(0xDD, b"\0\1" + SECRET) + PLAIN[2:], "segment DD has 21 bytes"),
        (PLAIN[:-2] + segment(0xDC, b"\0\x11" + SECRET) + EOI, "segment DC has 21 bytes"),
        (PLAIN[:-2] + b"\xff\xfe\xff\xff" + SECRET + EOI, "the file ends within segment FE"),
        (PLAIN[:-2], "the JPEG has no end marker"),
    ],
)  # fmt: skip
def test_damaged_jpegs_are_refused(damage: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        stripped(damage)


def test_stray_bytes_in_a_jpeg_s_header_go_as_they_do_in_its_decoder() -> None:
    data = PLAIN[:20] + b"\0" + SECRET + b"\xff\0\xff\xd0\xff\1" + PLAIN[20:]
    assert stripped(data) == PLAIN
    np.testing.assert_array_equal(decode(data, ImageConfig(size=8)), decode(PLAIN, ImageConfig(size=8)))


def entry(tag: int, kind: int, value: int, order: str = ">", number: int = 1) -> bytes:
    cells = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
    return struct.pack(f"{order}HHI", tag, kind, number) + cells


def tiff(entries: list[bytes], order: str = ">", begin: int = 8, number: int | None = None) -> bytes:
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", begin)
    count = struct.pack(f"{order}H", len(entries) if number is None else number)
    # The next directory is this one: a loop.
    return head + SECRET[: begin - 8] + count + b"".join(entries) + struct.pack(f"{order}I", begin)


@settings(deadline=None)
@given(
    order=st.sampled_from("<>"),
    entries=st.lists(
        st.tuples(st.sampled_from([0x0100, 0x0112, 0x8825, 0x0131]), st.sampled_from([3, 4]), st.integers(0, 10))
    ),
    begin=st.integers(8, 20),
    prefix=st.sampled_from([b"", EXIF, EXIF * 2]),
    extra=st.integers(0, 3),
)
def test_an_orientation_is_found_as_pillow_finds_it(
    order: str, entries: list[tuple[int, int, int]], begin: int, prefix: bytes, extra: int
) -> None:
    packed = [entry(*values, order) for values in entries]
    block = prefix + tiff(packed, order, begin)
    exif = Image.Exif()
    exif.load(block)
    orientation, bare = exif.get(0x0112), bare_exif(block + SECRET)
    turns = orientation is not None and 2 <= orientation <= 8
    assert len(bare) == (len(prefix) + 26 if turns else 0)
    assert bare_exif(bare) == bare
    if turns:
        # Byte order and the type of the number, which some programs look at, are the original's.
        kind = next(kind for tag, kind, _ in entries if tag == 0x0112)
        assert bare == prefix + tiff([entry(0x0112, kind, orientation, order)], order)[:-4] + bytes(4)


@pytest.mark.parametrize(
    "block",
    [
        b"", b"MM", b"MM\0*", b"XX\0*" + TURNED[4:], b"MM\0*\xff\xff\xff\xff" + TURNED[8:], b"MM\0+" + TURNED[4:],
        tiff([entry(0x0112, 3, 6, number=2)]), tiff([entry(0x0112, 2, 6)]), tiff([entry(0x0112, 4, 6 << 16)]),
        tiff([], number=65_535), TURNED[:-5], tiff([entry(0x8769, 4, 8), entry(0x0100, 3, 6)]),
    ],
)  # fmt: skip
def test_exif_that_cannot_be_read_goes(block: bytes) -> None:
    assert bare_exif(block) == b""
    assert stripped(PLAIN[:2] + segment(0xE1, EXIF + block) + PLAIN[2:]) == PLAIN
    assert stripped(PNG[:AT_CHUNKS] + chunk(b"eXIf", block) + PNG[AT_CHUNKS:]) == PNG


def test_a_directory_that_is_cut_off_is_read_as_far_as_it_goes() -> None:
    assert bare_exif(tiff([entry(0x0112, 3, 6)], number=9)) == TURNED


def raw(block: bytes, name: bytes) -> bytes:
    """A chunk with an Exif block as ImageMagick writes it."""
    digits = b"\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())
    text = {b"tEXt": digits, b"zTXt": b"\0" + zlib.compress(digits), b"iTXt": b"\1\0en\0\0" + zlib.compress(digits)}
    return chunk(name, b"Raw profile type exif\0" + text[name])


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("at", [AT_CHUNKS, len(PNG) - 12])
def test_exif_in_a_png_s_text(name: bytes, at: int) -> None:
    bare = check(PNG[:at] + raw(exif_of(6), name) + PNG[at:])
    assert exifs(bare) == {0x0112: 6}
    assert bare == PNG[:at] + raw(EXIF + tiff([entry(0x0112, 3, 6, "<")], "<")[:-4] + bytes(4), b"tEXt") + PNG[at:]
    assert stripped(PNG[:at] + raw(exif_of(1), name) + PNG[at:]) == PNG
    # A program that finds Exif looks into no text.
    assert check(PNG[:at] + chunk(b"eXIf", exif_of(None)[6:]) + raw(exif_of(6), name) + PNG[at:]) == PNG


@pytest.mark.parametrize(
    "text", [b"", b"\nexif\n 5\nzz", b"\0no zlib", b"\0" + zlib.compress(b"\n\n\n" + b"00" * 2**21)]
)
def test_text_that_is_no_exif_goes(text: bytes) -> None:
    for name in (b"tEXt", b"zTXt", b"iTXt"):
        assert stripped(PNG[:AT_CHUNKS] + chunk(name, b"Raw profile type exif\0" + text) + PNG[AT_CHUNKS:]) == PNG


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (PNG[:50] + b"?" + PNG[51:], "chunk b'IDAT' has a wrong checksum"),
        (PNG[:8] + PNG[AT_CHUNKS:], "the PNG begins with b'IDAT'"),
        (PNG[:-12] + chunk(b"IEND", SECRET), "chunk b'IEND' of 19 bytes has no place in a PNG"),
        (PNG[:AT_CHUNKS] + chunk(b"SECR", SECRET) + PNG[AT_CHUNKS:], "chunk b'SECR' of 19 bytes has no place in a PNG"),
        (PNG[:AT_CHUNKS] + chunk(b"\0\0\0\0", b"") + PNG[AT_CHUNKS:], r"chunk b'\\x00\\x00\\x00\\x00' of 0 bytes .*"),
        (PNG[:AT_CHUNKS] + b"\xff\xff\xff\xfftEXt" + PNG[AT_CHUNKS:], "the file ends within chunk b'tEXt'"),
        (PNG[:-12], "the file ends within a PNG chunk"),
    ],
)
def test_damaged_pngs_are_refused(damage: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        stripped(damage)


def test_a_chunk_of_another_size_hides_nothing() -> None:
    assert stripped(PNG[:AT_CHUNKS] + chunk(b"gAMA", bytes(4) + SECRET) + PNG[AT_CHUNKS:]) == PNG


GOOD = [saved("JPEG", 6), saved("PNG", 6), saved("WEBP", 6), encode(WIDE, "GIF", comment=SECRET)]


@settings(deadline=None)
@given(data=st.sampled_from(GOOD), seed=st.randoms(use_true_random=False), changes=st.integers(1, 5))
def test_any_damage_is_refused_in_one_line_or_leaves_a_file_that_stays_as_it_is(
    data: bytes, seed: random.Random, changes: int
) -> None:
    broken = bytearray(data)
    for _ in range(changes):
        broken[seed.randrange(12, len(broken))] = seed.choice([0, 1, 0xFF, seed.randrange(256)])
    with contextlib.suppress(ValueError):
        bare = stripped(bytes(broken))
        assert stripped(bare) == bare
        assert len(bare) <= len(broken) + 100
