"""What is refused: images over a limit, cut off, damaged, or of a format that is not read."""

import pickle
import re
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image, PngImagePlugin

from engine.config.input_options import ImageConfig
from engine.pool.images import MAX_SCANS, DecodeError, decode
from tests.engine.pool.test_images import EVERY_SUFFIX, JPEG, PHOTO, PROGRESSIVE, RESTARTS, SMALL, chunk, encode, png

EOI = b"\xff\xd9"
ONE_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
"""The header of a scan of one component, where others would follow."""
WEBP = encode(PHOTO, "WEBP")
SLOW_PROGRESSIVE = encode(PHOTO, "JPEG", **PROGRESSIVE)
BLACK = bytes(25 * 8)


def refusal(data: bytes, image: ImageConfig = SMALL) -> str:
    """The kind of the error."""
    with pytest.raises(DecodeError) as caught:
        decode(data, image)
    assert "\n" not in str(caught.value)
    return caught.value.kind


def claiming(width: int, height: int, data: bytes, marker: bytes) -> bytes:
    """The JPEG with another size in its frame header."""
    at = data.index(b"\xff" + marker) + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def canvas(width: int, height: int) -> bytes:
    """An animated WebP that claims this size."""
    data = encode(PHOTO, "WEBP", save_all=True, append_images=[PHOTO.rotate(90)])
    at = data.index(b"VP8X") + 12
    return data[:at] + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + data[at + 6 :]


@pytest.mark.parametrize(
    "data",
    [
        png(2**31 - 1, 2**31 - 1, b""),
        claiming(65_500, 65_500, JPEG, b"\xc0"),
        claiming(65_500, 65_500, SLOW_PROGRESSIVE, b"\xc2"),
        canvas(1 << 24, 255),
        encode(Image.new("L", (2000, 600))),
    ],
    ids=["png", "jpeg", "progressive", "webp", "honest"],
)
def test_too_many_pixels_are_refused_before_decoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow's parser of WebP begins with room for the canvas.
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", None)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)
    with pytest.raises(DecodeError, match=r"^\d+ x \d+ pixels, more than image.max_pixels=1000000$") as caught:
        decode(data, ImageConfig(max_pixels=10**6))
    assert caught.value.kind == "TooManyPixels"


@pytest.mark.parametrize("data", [JPEG, WEBP, b"no image"])
def test_too_many_bytes_are_refused_before_anything_else(data: bytes) -> None:
    assert refusal(data, ImageConfig(max_bytes=len(data) - 1)) == "TooManyBytes"


def test_both_limits_are_inclusive() -> None:
    assert decode(JPEG, ImageConfig(max_bytes=len(JPEG), max_pixels=32 * 32)).shape == (32, 32, 3)
    assert refusal(JPEG, ImageConfig(max_pixels=32 * 32 - 1)) == "TooManyPixels"


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_png_that_inflates_its_text_or_profile_is_damaged(name: bytes) -> None:
    start = b"k\0\1\0\0\0" if name == b"iTXt" else b"k\0\0"
    assert decode(png(8, 8, BLACK, chunk(name, start + zlib.compress(bytes(1000)))), SMALL).max() == 0
    assert refusal(png(8, 8, BLACK, chunk(name, start + zlib.compress(bytes(50 << 20))))) == "Damaged"


@pytest.mark.parametrize("kind", ["progressive", "one component after another"])
def test_a_jpeg_of_too_many_scans_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    at = JPEG.index(b"\xff\xda")
    start, scan = (SLOW_PROGRESSIVE[:-2], ONE_SCAN) if kind == "progressive" else (JPEG[:at], ONE_SCAN + b"\0")
    most = MAX_SCANS - start.count(b"\xff\xda")
    assert refusal(start + scan * (most + 1) + EOI) == "TooManyScans"
    with pytest.raises(pytest.fail.Exception):
        decode(start + scan * most + EOI, SMALL)


def test_what_follows_a_jpeg_does_not_count() -> None:
    np.testing.assert_array_equal(decode(JPEG + b"\xff\xda" * 2 * MAX_SCANS, SMALL), decode(JPEG, SMALL))


@pytest.mark.parametrize("options", [{}, PROGRESSIVE, RESTARTS], ids=["baseline", "progressive", "restarts"])
def test_a_jpeg_is_refused_wherever_it_is_cut(options: dict[str, bool]) -> None:
    data = encode(PHOTO, "JPEG", **options)
    kinds = [refusal(data[:length]) for length in range(3, len(data))]
    assert set(kinds) <= {"CutOff", "Damaged"}
    assert options == PROGRESSIVE or set(kinds) == {"CutOff"}


@pytest.mark.parametrize("options", [{}, RESTARTS], ids=["baseline", "restarts"])
def test_an_end_behind_the_cut_does_not_help(options: dict[str, bool]) -> None:
    data = encode(PHOTO, "JPEG", **options)
    for length in range(3, len(data) - 4):
        refusal(data[:length] + EOI)


def test_a_cmyk_jpeg_that_lacks_data_is_refused() -> None:
    data = encode(PHOTO.convert("CMYK"), "JPEG")
    assert refusal(data[: len(data) * 3 // 4] + EOI) == "Damaged"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "BMP", "TIFF"])
def test_another_file_is_refused_wherever_it_is_cut(image_format: str) -> None:
    data = encode(PHOTO, image_format)
    # Only the checksum of what says that the PNG ends.
    complete = len(data) - 4 if image_format == "PNG" else len(data)
    kinds = [refusal(data[:length], ImageConfig(suffixes=EVERY_SUFFIX)) for length in range(16, complete)]
    assert set(kinds) == {"CutOff"} or (image_format in ("BMP", "TIFF") and set(kinds) == {"CutOff", "Damaged"})


def test_a_gif_is_refused_where_its_first_frame_is_cut() -> None:
    data = encode(PHOTO, "GIF")
    for length in range(16, len(data) - 2):
        refusal(data[:length], ImageConfig(suffixes=["gif"]))


HEADER_JUNK = JPEG[:20] + b"junk" + JPEG[20:]
STRANGE_REVISION = JPEG[:11] + b"\x09" + JPEG[12:]


@pytest.mark.parametrize("data", [HEADER_JUNK, STRANGE_REVISION, JPEG[:-2] + b"junk" + EOI, JPEG + b"junk"])
def test_a_complete_jpeg_with_a_remark_on_it_is_accepted(data: bytes) -> None:
    np.testing.assert_array_equal(decode(data, ImageConfig()), decode(JPEG, ImageConfig()))


def test_a_few_bytes_before_the_end_are_accepted_and_many_are_not() -> None:
    scans = SLOW_PROGRESSIVE[:-2]
    np.testing.assert_array_equal(decode(scans + b"junk" + EOI, SMALL), decode(scans + EOI, SMALL))
    assert refusal(scans + bytes(200) + EOI) == "Damaged"


@pytest.mark.parametrize("data", [HEADER_JUNK, STRANGE_REVISION])
def test_a_remark_on_the_header_does_not_hide_missing_data(data: bytes) -> None:
    assert refusal(data[:-100] + EOI) == "Damaged"
    assert refusal(data[:-100]) == "CutOff"


def test_a_remark_on_the_header_does_not_change_the_colours() -> None:
    data = bytearray(encode(PHOTO, "JPEG", keep_rgb=True))
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    expected = decode(bytes(data), SMALL)
    np.testing.assert_array_equal(decode(bytes(data[:frame] + b"junk" + data[frame:]), SMALL), expected)
    # Then Adobe's segment alone says that it is RGB.
    data[frame + 10 : frame + 18 : 3] = data[scan + 5 : scan + 10 : 2] = bytes((1, 2, 3))
    np.testing.assert_array_equal(decode(bytes(data), SMALL), expected)
    assert refusal(bytes(data[:frame] + b"junk" + data[frame:])) == "Damaged"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n",
        encode(PHOTO, "EPS"),
        encode(PHOTO, "PDF"),
        encode(PHOTO, "PPM"),
        encode(PHOTO, "ICO"),
        encode(PHOTO, "SGI"),
        encode(PHOTO, "GIF"),
        encode(PHOTO, "BMP"),
        encode(PHOTO, "TIFF"),
    ],
)
def test_what_is_no_image_of_a_configured_format_is_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    assert refusal(data) == "UnknownFormat"


@pytest.mark.parametrize(
    ("suffix", "image_format"), [("GIF", "GIF"), ("bmp", "BMP"), ("tif", "TIFF"), ("tiff", "TIFF")]
)
def test_a_configured_suffix_opens_its_format_alone(suffix: str, image_format: str) -> None:
    for other in ("GIF", "BMP", "TIFF"):
        data, image = encode(PHOTO, other), ImageConfig(size=8, suffixes=[suffix])
        if other == image_format:
            assert decode(data, image).shape == (8, 8, 3)
        else:
            assert refusal(data, image) == "UnknownFormat"


@pytest.mark.parametrize("data", [png(0, 8, b""), claiming(8, 0, JPEG, b"\xc0"), b"\x89PNG\r\n\x1a\n" + b"IEND" * 9])
def test_no_pixels_are_damage(data: bytes) -> None:
    assert refusal(data) == "Damaged"


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\nIEND" + bytes(50), JPEG[:400], b"RIFF\0\0\0\0WEBP"])
def test_the_text_is_the_same_every_time(data: bytes) -> None:
    with pytest.raises(DecodeError) as first:
        decode(data, SMALL)
    with pytest.raises(DecodeError, match=f"^{re.escape(str(first.value))}$"):
        decode(bytes(bytearray(data)), SMALL)
    again = pickle.loads(pickle.dumps(first.value))
    assert (str(again), again.kind) == (str(first.value), first.value.kind)


def out_of_memory(text: str = "") -> MemoryError:
    raise MemoryError(text)


def test_memory_that_an_honest_image_lacks_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", out_of_memory)
    with pytest.raises(MemoryError):
        decode(encode(PHOTO), SMALL)

    def decode_jpeg(*_: object, **__: object) -> None:
        raise ValueError("Insufficient memory (case 4)")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode_jpeg)
    with pytest.raises(MemoryError):
        decode(JPEG, SMALL)


def test_memory_that_a_header_asks_for_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "_open", out_of_memory)
    assert refusal(encode(PHOTO)) == "Damaged"


EXIF = Image.Exif()
EXIF[0x0112] = 6
TINY = PHOTO.resize((12, 12))
SEEDS = {
    "jpeg": encode(TINY, "JPEG", exif=EXIF),
    "progressive": encode(TINY, "JPEG", **PROGRESSIVE),
    "cmyk": encode(TINY.convert("CMYK"), "JPEG"),
    "png": encode(TINY, exif=EXIF),
    "palette": encode(TINY.quantize(8), transparency=3),
    "animation": encode(TINY, save_all=True, append_images=[TINY.rotate(90)]),
    "webp": encode(TINY, "WEBP", exif=EXIF),
    "canvas": encode(TINY, "WEBP", save_all=True, append_images=[TINY.rotate(90)]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("times", [500, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_any_damage_gives_pixels_or_a_decode_error(name: str, times: int) -> None:
    rng, num_refused, texts = np.random.default_rng(0), 0, set()
    for _ in range(times):
        data = bytearray(SEEDS[name])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        if rng.random() < 0.2:
            del data[rng.integers(len(data)) :]
        try:
            pixels = decode(bytes(data), ImageConfig(size=8, max_pixels=10**6))
        except DecodeError as error:
            num_refused += 1
            texts.add(str(error))
        else:
            assert pixels.shape == (8, 8, 3)
            assert pixels.dtype == np.uint8
    assert 0 < num_refused < times
    assert not [text for text in texts if re.search(r"\n| at 0x", text)]
