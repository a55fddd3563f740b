"""From an image file's bytes to the pixels that the networks see. The same for training, scoring and the report.

A file's content decides its format, never its name. JPEG, PNG and WebP are always read; GIF, BMP and TIFF only if
`image.suffixes` lists them; no other parser is reachable. Limits are checked on the header, before any pixel is
decoded. The caller limits the time.
"""

import io
import pkgutil
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile

from engine.config.input_options import ImageConfig
from engine.errors import one_line
from engine.pool.formats import format_of
from engine.pool.orientation import exif_orientation, is_turned, upright
from engine.pool.resizing import resized
from engine.pool.wide_samples import to_bytes

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_JPEG_COLOURS = {"L": "GRAY", "LA": "GRAY", "RGB": "RGB", "RGBA": "RGBA"}
MAX_SCANS = 500
"""Most scans of a JPEG. Encoders write about ten; thousands of empty scans in a small file take minutes."""
_PADDING_BEFORE_END = re.compile(r"Corrupt JPEG data: \d\d? extraneous bytes before marker 0xd9")
"""libjpeg's warning of a few stray bytes after the last scan. It reports its first warning: nothing before is wrong."""


class DecodeError(ValueError):
    """An image without defined pixels. The text is one line, the same in every run.

    `kind` groups failures in tables: TooManyBytes, TooManyPixels, TooManyScans, UnknownFormat, CutOff (the file ends
    before its image, if the format shows it) or Damaged.
    """

    def __init__(self, text: str, kind: str = "Damaged") -> None:
        super().__init__(text)
        self.kind = kind


def decode(data: bytes, image: ImageConfig) -> NDArray[np.uint8]:
    """Pixels (image.size, image.size, image.channels), uint8.

    The whole image, upright by its EXIF orientation, is resized with antialiasing (triangle filter); the aspect ratio
    is not kept. If `open_upright` reduces a JPEG, pixels differ from those of full decoding: over 400 photographs of
    0.2 megapixels (median) by 1.2 in the mean and at most 62 of 255 at 32 px, by 0.9 and 61 at 64 px, and by 0.03 and
    14 at 224 px. All other files are decoded in full, and resized as Pillow does it, up to a grey level.

    Greyscale becomes three equal channels, colour becomes ITU-R 601 luma. CMYK and YCCK JPEGs are taken as inverted,
    Adobe's convention. With 1 or 3 channels alpha and transparent colours are dropped, not blended; an image without
    alpha is opaque (255). Grey samples of more than 8 bits keep the high byte of the depth that they use (8, 10, 12, 14
    or 16 bits); floats and 32-bit integers are scaled, see `engine.pool.wide_samples`. Of an animation the first frame
    counts.

    A JPEG with a libjpeg warning is refused, unless the warning is about its header or about fewer than 100 bytes
    between its last scan and its end. So missing data is never filled with grey. A JPEG or PNG without its end marker
    is cut off even if no pixel is missing.

    Raises:
        DecodeError: no image, cut off, damaged, of a format that is not read, or over `image.max_bytes`,
            `image.max_pixels` or MAX_SCANS; a PNG with over a mebibyte of inflated text or colour profile is damaged.
        MemoryError: an image within the limits does not fit into this machine's memory.
    """
    return _decode(data, image, [image.size])[0]


def decode_sizes(data: bytes, image: ImageConfig, sides: Sequence[int]) -> list[NDArray[np.uint8]]:
    """As `decode`, for each of these sides in place of image.size.

    An image is decoded once, unless a JPEG is reduced more for one side than for another: decoding it again, reduced,
    takes less time than resizing the larger one.
    """
    _check_bytes(data, image)
    if data.startswith(_JPEG):
        jpeg_segments(data)
        height, width, *_ = _ask(simplejpeg.decode_jpeg_header, data, strict=False)
        if len({_reduction(height, width, side) for side in sides}) > 1:
            return [_decode(data, image, [side])[0] for side in sides]
    return _decode(data, image, sides)


def _decode(data: bytes, image: ImageConfig, sides: Sequence[int]) -> list[NDArray[np.uint8]]:
    """The pixels for each side, of a decoding for the first."""
    mode = _MODES[image.channels]
    _check_bytes(data, image)
    if data.startswith(_JPEG):
        pixels, orientation = _read_jpeg(data, sides[0], _JPEG_COLOURS[mode], image)
        if pixels.shape[2] == image.channels and not is_turned(orientation):
            return [resized(pixels, side) for side in sides]
        opened = upright(Image.fromarray(pixels.squeeze(2) if mode[0] == "L" else pixels), orientation)
    else:
        opened = _read_other(data, image)
    if image.channels % 2:
        # Without this Pillow would warn that a palette loses its transparency.
        opened.info.pop("transparency", None)
    converted = opened if opened.mode == mode else opened.convert(mode)
    if image.channels % 2:
        pixels = np.array(converted).reshape(*converted.size[::-1], image.channels)
        return [resized(pixels, side) for side in sides]
    # Colours count by their opacity.
    return [np.asarray(converted.resize((side, side), Image.Resampling.BILINEAR)) for side in sides]


def open_upright(data: bytes, side: int, image: ImageConfig) -> Image.Image:
    """An image file's pixels in its own colours and aspect ratio: loaded, upright, at most 8 bits a channel.

    A JPEG whose shorter side is at least 4 x, 8 x or 16 x `side` is decoded at a half, a quarter or an eighth of its
    size, so never below twice `side`; CMYK becomes RGB.

    Raises DecodeError as `decode` does.
    """
    _check_bytes(data, image)
    if data.startswith(_JPEG):
        pixels, orientation = _read_jpeg(data, side, None, image)
        return upright(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels), orientation)
    return _read_other(data, image)


def _check_bytes(data: bytes, image: ImageConfig) -> None:
    if len(data) > image.max_bytes:
        raise DecodeError(f"{len(data)} bytes, more than image.max_bytes={image.max_bytes}", "TooManyBytes")


def _check_pixels(width: int, height: int, image: ImageConfig) -> None:
    if width * height > image.max_pixels:
        raise DecodeError(f"{width} x {height} pixels, more than image.max_pixels={image.max_pixels}", "TooManyPixels")


LEAST_HIGH_BYTE = 64
_JPEG = b"\xff\xd8\xff"
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SEQUENTIAL = (0xC0, 0xC1)
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})
"""Markers without a length. libjpeg refuses an end or a second start in the header."""
_SOS, _APP1, _COMMENT = 0xDA, 0xE1, 0xFE
_Segment = tuple[int, int, int]
"""Marker, begin and end in the file. A plain tuple, because a small JPEG is decoded in 8 us."""


def _read_jpeg(data: bytes, side: int, colours: str | None, image: ImageConfig) -> tuple[NDArray[np.uint8], Any]:
    """Pixels (H, W, 1, 3 or 4) as stored, CMYK as RGB, and the orientation. `colours` None keeps the file's own."""
    segments = jpeg_segments(data)
    height, width, space, _ = _ask(simplejpeg.decode_jpeg_header, data, strict=False)
    _check_pixels(width, height, image)
    _check_scans(data, segments)
    factor = _reduction(height, width, side)
    is_cmyk = space in ("CMYK", "YCCK")
    options = {
        "colorspace": "CMYK" if is_cmyk else colours or ("GRAY" if space == "Gray" else "RGB"),
        "min_height": -(-height // factor),
        "min_width": -(-width // factor),
    }
    try:
        pixels = _ask(simplejpeg.decode_jpeg, data, **options)
    except DecodeError as error:
        if _PADDING_BEFORE_END.fullmatch(str(error)):
            pixels = _ask(simplejpeg.decode_jpeg, data, strict=False, **options)
        else:
            # libjpeg reports only its first warning. Without header data to warn about, the first is about the scans.
            bare = _bare(data, segments)
            if _ask(simplejpeg.decode_jpeg_header, bare)[2] != space:
                raise
            pixels = _ask(simplejpeg.decode_jpeg, bare, **options)
    if is_cmyk:
        inverted = Image.frombytes("CMYK", pixels.shape[1::-1], pixels.tobytes(), "raw", "CMYK;I")
        pixels = np.asarray(inverted.convert("L" if colours == "GRAY" else "RGB"))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels, jpeg_orientation(data, segments)


def _reduction(height: int, width: int, side: int) -> int:
    # At scales that are not powers of two libjpeg is not faster, and differs more from full decoding.
    return next((factor for factor in (8, 4, 2) if min(height, width) >= 2 * side * factor), 1)


def _ask(function: Callable[..., Any], data: bytes, **options: Any) -> Any:
    """The result of a function of simplejpeg; its errors become DecodeError."""
    try:
        return function(data, **options)
    except MemoryError:
        raise
    except Exception as error:
        # It raises ValueError, and KeyError(-1) for unknown colours.
        text = "unknown colours" if isinstance(error, KeyError) else one_line(error)
        if text.startswith("Insufficient memory"):
            raise MemoryError(text) from error
        raise DecodeError(text, "CutOff" if text == "Premature end of JPEG file" else "Damaged") from error


def jpeg_segments(data: bytes) -> list[_Segment]:
    """A JPEG's segments up to its first scan's header. As in libjpeg, stray bytes between them are skipped."""
    found, end = [], 2
    try:
        while True:
            begin = data.index(b"\xff", end)
            marker = data[begin + 1]
            if marker == 0xFF:
                end = begin + 1
            elif marker in _ALONE:
                end = begin + 2
            else:
                end = begin + 2 + (data[begin + 2] << 8 | data[begin + 3])
                found.append((marker, begin, end))
                if marker == _SOS and end < len(data):
                    return found
    except (IndexError, ValueError) as error:
        raise DecodeError("the file ends in the JPEG's header", "CutOff") from error


def _check_scans(data: bytes, segments: list[_Segment]) -> None:
    """Refuse a JPEG with too many scans. Only files that libjpeg reads as several scans are searched."""
    kind, frame, _ = next((segment for segment in segments if segment[0] in _SOF), (0, 0, 0))
    scan = segments[-1][1]
    is_single = kind in _SEQUENTIAL and data[scan + 4 : scan + 5] == data[frame + 9 : frame + 10]
    # In scans 0xFF is always followed by 0x00 or a marker, so no scan is missed. Data after the image may be counted.
    if not is_single and data.count(bytes((0xFF, _SOS)), scan) > MAX_SCANS:
        raise DecodeError(f"a JPEG of more than {MAX_SCANS} scans", "TooManyScans")


def _bare(data: bytes, segments: list[_Segment]) -> bytes:
    """The JPEG without header data that scans do not need: application data, comments and stray bytes."""
    kept = (data[begin:end] for marker, begin, end in segments if not 0xE0 <= marker <= _COMMENT)
    return b"\xff\xd8" + b"".join(kept) + data[segments[-1][2] :]


def jpeg_orientation(data: bytes, segments: list[_Segment]) -> Any:
    """The EXIF orientation, not checked; None if there is none or it cannot be read."""
    for marker, begin, end in segments:
        if marker == _APP1 and data.startswith(b"Exif\0\0", begin + 4):
            return exif_orientation(data[begin + 4 : end])
    return None


def _read_other(data: bytes, image: ImageConfig) -> Image.Image:
    """A file of another format than JPEG, by Pillow, as `open_upright` returns it."""
    opened = opened_header(data, image)
    _check_pixels(*opened.size, image)
    is_cut_to_bytes = any(";16" in str(tile.args) for tile in opened.tile) and not _is_wide(opened)
    try:
        opened.load()
        turned = upright(opened, opened.getexif().get(Base.Orientation))
    except MemoryError:
        raise
    except Exception as error:
        raise _from_pillow(error) from error
    if is_cut_to_bytes and np.asarray(turned.convert("RGB")).max() < LEAST_HIGH_BYTE:
        # Pillow keeps the high byte alone.
        raise DecodeError(
            "16-bit colours that use less than a quarter of their range; use all of it or 8 bits", "LowBits"
        )
    if not _is_wide(turned):
        return turned
    try:
        return Image.fromarray(to_bytes(np.asarray(turned)))
    except ValueError as error:
        raise DecodeError(str(error)) from error


def _is_wide(opened: Image.Image) -> bool:
    return opened.mode.startswith(("I", "F"))


def opened_header(data: bytes, image: ImageConfig) -> ImageFile:
    """The header by Pillow. Image.open is not used, because it has its own limit and tries every parser."""
    form = format_of(data)
    if form is None:
        raise DecodeError("not an image of a known format", "UnknownFormat")
    if not form.is_read_always and not set(form.suffixes) & {suffix.lower() for suffix in image.suffixes}:
        raise DecodeError(f"{form.name}, and image.suffixes has no {min(form.suffixes)}", "UnknownFormat")
    if form.name == "PNG" and b"IEND" not in data:
        raise DecodeError("the PNG has no end marker", "CutOff")
    if form.name == "WebP":
        if len(data) < 8 + int.from_bytes(data[4:8], "little"):
            raise DecodeError("the WebP is shorter than it says", "CutOff")
        if data[12:16] == b"VP8X":
            # The parser allocates the whole canvas at once.
            _check_pixels(1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"), image)
    try:
        opened: ImageFile = pkgutil.resolve_name(form.parser)(io.BytesIO(data))
    except Exception as error:
        # Also MemoryError: the header, which may be damaged, decides how much is allocated.
        raise _from_pillow(error) from error
    return opened


def _from_pillow(error: Exception) -> DecodeError:
    text = one_line(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return DecodeError(text, "TooManyPixels")
    return DecodeError(text, "CutOff" if "truncated" in text.lower() else "Damaged")
