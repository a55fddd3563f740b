"""Which way up an image is: its EXIF orientation."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: np.rot90,
}
"""The same for an array (H, W)."""


def is_turned(orientation: Any) -> bool:
    """Whether an image of this EXIF orientation, which may be anything, is not upright as it is stored."""
    return orientation in _UPRIGHT


def swaps_sides(orientation: Any) -> bool:
    """Whether an image of this EXIF orientation, which may be anything, is shown as high as it is wide in its file."""
    return orientation in (5, 6, 7, 8)


def upright(image: Image.Image, orientation: Any) -> Image.Image:
    """The image, turned upright."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def turned(pixels_HW: NDArray[Any], orientation: Any, *, back: bool = False) -> NDArray[Any]:
    """What lies over an image as it is stored, turned upright with it; or `back`."""
    way = {6: 8, 8: 6}.get(orientation, orientation) if back else orientation
    return _TURNS[way](pixels_HW) if way in _TURNS else pixels_HW


def exif_orientation(content: bytes) -> Any:
    """The orientation that EXIF data says, not checked; None if it says none or cannot be read."""
    exif = Image.Exif()
    try:
        exif.load(content)
        return exif.get(Base.Orientation)
    except Exception:  # noqa: BLE001 - Pillow raises many, and the pixels are not affected.
        return None
