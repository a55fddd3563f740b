"""Metadata goes, and the picture stays: pixels, orientation, colours and animation, in every format."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from engine.config.input_options import ImageConfig
from engine.handoff.stripping import is_strippable, stripped
from engine.pool.images import decode
from tests.engine.pool.test_images import EVERY_SUFFIX, PHOTO, PROGRESSIVE, RESTARTS, chunk, encode, pictures, png

SECRET = b"Jane Doe, 52.5163 N"
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = PHOTO.crop((0, 0, 32, 17))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><photoshop:City>%s</photoshop:City></x:xmpmeta>' % SECRET
EOI, SOS = b"\xff\xd9", b"\xff\xda"
COLOURS = ("icc_profile", "transparency", "gamma", "chromaticity", "srgb", "aspect", "loop", "background", "adobe")
"""What Pillow knows of a picture's colours and animation."""


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content


def exif_of(orientation: int | None, order: str = "<") -> bytes:
    """An Exif block of a camera: its owner, its place, and a thumbnail in the second directory."""
    exif = Image.Exif()
    exif.endian = order
    if orientation is not None:
        exif[0x0112] = orientation
    exif[0x013B] = SECRET.decode()
    exif[0x8298] = SECRET.decode()
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 58.68), 29: SECRET.decode()})
    exif.get_ifd(0x8769).update({0x9286: SECRET, 0xA430: SECRET.decode()})
    block = exif.tobytes()
    thumbnail = encode(PHOTO.resize((8, 8)), "JPEG", comment=SECRET)
    assert block.count(SECRET) == 5
    return block + thumbnail


def saved(image_format: str, orientation: int | None = None, image: Image.Image = WIDE, **options: Any) -> bytes:
    """An image with all the metadata that Pillow writes."""
    texts = PngInfo()
    for add in (texts.add_text, texts.add_itxt):
        add("Author", SECRET.decode())
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    own: dict[str, Any] = {"pnginfo": texts} if image_format == "PNG" else {"comment": SECRET, "xmp": XMP}
    data = encode(image, image_format, exif=exif_of(orientation), icc_profile=ICC, **own | options)
    assert SECRET in data
    return data


def frames(data: bytes) -> list[tuple[NDArray[np.uint8], Any]]:
    opened = Image.open(io.BytesIO(data))
    return [(np.asarray(frame.convert("RGBA")), frame.info.get("duration")) for frame in ImageSequence.Iterator(opened)]


def upright(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


def check(data: bytes, *secrets: bytes) -> bytes:
    """The stripped file, which is the same picture without the secrets, and stays as it is."""
    bare = stripped(data)
    for (ours, our_time), (theirs, their_time) in zip(frames(bare), frames(data), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert our_time == their_time
    before, after = upright(data), upright(bare)
    assert after.mode == before.mode
    np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
    info, old = Image.open(io.BytesIO(bare)).info, Image.open(io.BytesIO(data)).info
    for name in COLOURS:
        assert info.get(name) == old.get(name), name
    assert not [secret for secret in (SECRET, XMP[:20], *secrets) if secret in bare or secret.hex().encode() in bare]
    assert stripped(bare) == bare
    image = ImageConfig(size=8, suffixes=EVERY_SUFFIX)
    np.testing.assert_array_equal(decode(bare, image), decode(data, image))
    return bare


def exifs(bare: bytes) -> dict[int, Any]:
    return dict(Image.open(io.BytesIO(bare)).getexif())


@pytest.mark.parametrize("orientation", [None, *range(10)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_of_exif_the_orientation_alone_stays_and_only_if_it_turns_the_picture(
    image_format: str, orientation: int | None
) -> None:
    bare = check(saved(image_format, orientation))
    turns = orientation is not None and 2 <= orientation <= 8
    assert exifs(bare) == ({0x0112: orientation} if turns else {})
    assert len(bare) < len(encode(WIDE, image_format, icc_profile=ICC)) + 60
    if not turns:
        assert bare == encode(WIDE, image_format, icc_profile=ICC)


@pytest.mark.parametrize("options", [{}, PROGRESSIVE, RESTARTS, {"subsampling": 0}, {"keep_rgb": True}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_of_all_kinds(mode: str, options: dict[str, Any]) -> None:
    plain = encode(WIDE.convert(mode), "JPEG", **options)
    assert stripped(plain) == plain
    assert exifs(check(saved("JPEG", 6, WIDE.convert(mode), **options))) == {0x0112: 6}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pngs_of_all_kinds(mode: str) -> None:
    image = (
        Image.fromarray(np.asarray(WIDE.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else WIDE.convert(mode)
    )
    options = {"transparency": 3} if mode == "P" else {}
    plain = encode(image, **options)
    assert stripped(plain) == plain
    assert exifs(check(saved("PNG", 8, image, **options))) == {0x0112: 8}


def test_what_decides_a_png_s_colours_stays() -> None:
    colours = [
        chunk(b"gAMA", (45455).to_bytes(4)), chunk(b"cHRM", struct.pack(">8I", *range(1, 9))), chunk(b"sRGB", b"\1"),
        chunk(b"sBIT", b"\5\6\5"), chunk(b"bKGD", bytes(6)), chunk(b"tRNS", bytes(6)), chunk(b"cICP", bytes(4)),
        chunk(b"pHYs", struct.pack(">IIB", 2835, 5670, 1)), chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(ICC)),
    ]  # fmt: skip
    secrets = [chunk(b"tIME", SECRET[:7]), chunk(b"prVt", SECRET), chunk(b"sPLT", SECRET), chunk(b"caBX", SECRET)]
    mixed = [piece for pair in zip(colours, secrets * 3, strict=False) for piece in pair]
    rows = (b"\0" + bytes(range(24))) * 8
    assert check(png(8, 8, rows, *mixed), SECRET[:7]) == png(8, 8, rows, *colours)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webps_of_all_kinds(mode: str, options: dict[str, Any]) -> None:
    image = WIDE.convert("RGBA")
    image.putalpha(PHOTO.convert("L").crop((0, 0, 32, 17)))
    plain = encode(image.convert(mode), "WEBP", **options)
    assert stripped(plain) == plain
    assert exifs(check(saved("WEBP", 3, image.convert(mode), **options))) == {0x0112: 3}


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "GIF"])
def test_animations_stay(image_format: str) -> None:
    others = [WIDE.rotate(90), WIDE.rotate(180)]
    moving = {"save_all": True, "append_images": others, "duration": [50, 60, 70], "loop": 3}
    is_gif = image_format == "GIF"
    data = encode(WIDE, "GIF", comment=SECRET, **moving) if is_gif else saved(image_format, 5, **moving)
    bare = check(data)
    assert len(frames(bare)) == 3
    assert stripped(encode(WIDE, image_format, **moving)) == encode(WIDE, image_format, **moving)


@pytest.mark.parametrize("image_format", ["BMP", "TIFF"])
def test_other_formats_stay_as_they_are(image_format: str) -> None:
    data = encode(WIDE, image_format)
    assert stripped(data) is data
    assert not is_strippable(data)
    assert stripped(b"") == b""
    assert not is_strippable(b"")
    assert all(is_strippable(encode(WIDE, other)) for other in ("JPEG", "PNG", "WEBP", "GIF"))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("trailer", [SECRET, b"\0" * 9 + SECRET, saved("JPEG"), b"ftypmp42" + SECRET])
def test_what_follows_the_end_goes(image_format: str, trailer: bytes) -> None:
    """A motion photo's film, a second image, and the rest of a longer file that was overwritten."""
    plain = encode(WIDE, image_format)
    assert check(plain + trailer) == plain


def cuts(data: bytes) -> Iterator[bytes]:
    for size in {*range(12, min(700, len(data)), 7), *range(len(data) - 40, len(data)), *range(12, len(data), 97)}:
        yield data[:size]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_file_that_is_cut_off_is_refused(image_format: str) -> None:
    data = encode(WIDE, "GIF", comment=SECRET) if image_format == "GIF" else saved(image_format, 6)
    for part in cuts(data):
        with pytest.raises(ValueError, match=r"^[^\n]{10,70}$"):
            stripped(part)


@pytest.mark.heavy
@pytest.mark.parametrize("pattern", ["photos/pool-*", "cifar10/train-00000"])
def test_real_photographs(pattern: str) -> None:
    found = pictures(pattern)
    if not found:
        pytest.skip("no pictures below VAAL_DATA")
    kept = {("APP0", b"JFIF"), ("APP2", b"ICC_"), ("APP14", b"Adob")}
    for n, data in enumerate(found):
        bare, segments = stripped(data), Image.open(io.BytesIO(data)).applist
        has_metadata = not {(name, content[:4]) for name, content in segments} <= kept
        assert (bare != data) == has_metadata
        assert set(exifs(bare)) <= {0x0112}
        if has_metadata or n % 40 == 0:
            check(data, b"http://ns.adobe.com", b"Photoshop", b"\xff\xfe")
