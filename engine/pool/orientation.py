"""Which way up an image is: its EXIF orientation."""

from typing import Any

from PIL import Image
from PIL.ExifTags import Base

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Operation that turns an image upright, by its EXIF orientation."""


def is_turned(orientation: Any) -> bool:
    """Whether an image of this EXIF orientation, which may be anything, is not upright as it is stored."""
    return orientation in _UPRIGHT


def upright(image: Image.Image, orientation: Any) -> Image.Image:
    """The image, turned upright."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def exif_orientation(content: bytes) -> Any:
    """The orientation that EXIF data says, not checked; None if it says none or cannot be read."""
    exif = Image.Exif()
    try:
        exif.load(content)
        return exif.get(Base.Orientation)
    except Exception:  # noqa: BLE001 - Pillow raises many, and the pixels are not affected.
        return None
