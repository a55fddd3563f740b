"""Image formats: one row each, for decoding, and for the names of files that are handed out."""

import re
from typing import NamedTuple


class Format(NamedTuple):
    """A format: the first bytes of its files, its suffixes (the usual one first), Pillow's "module:class" that reads it
    (empty: libjpeg-turbo does), and whether it is read without being listed in `image.suffixes`."""

    name: str
    magic: re.Pattern[bytes]
    suffixes: tuple[str, ...]
    parser: str
    is_read_always: bool


FORMATS = (
    Format("JPEG", re.compile(rb"\xff\xd8\xff"), ("jpg", "jpeg"), "", True),
    Format("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), ("png",), "PIL.PngImagePlugin:PngImageFile", True),
    Format("WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL), ("webp",), "PIL.WebPImagePlugin:WebPImageFile", True),
    Format("GIF", re.compile(rb"GIF8[79]a"), ("gif",), "PIL.GifImagePlugin:GifImageFile", False),
    Format("BMP", re.compile(rb"BM"), ("bmp",), "PIL.BmpImagePlugin:BmpImageFile", False),
    Format("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), ("tif", "tiff"), "PIL.TiffImagePlugin:TiffImageFile", False),
)


def format_of(data: bytes) -> Format | None:
    """The format of an image file, by its content; None if it is in no row."""
    return next((form for form in FORMATS if form.magic.match(data)), None)
