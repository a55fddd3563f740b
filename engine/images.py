"""From an image file's bytes to the pixels that the networks see. The same for training and scoring."""

import io
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import one_line

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
"""What Pillow's parsers raise on damaged files."""


class DecodeError(ValueError):
    """An image that cannot be decoded within the limits. The text says why."""


def open_upright(data: bytes, side: int, max_pixels: int) -> Image.Image:
    """An image file as Pillow opens it: loaded, turned upright by its EXIF orientation, at most 8 bits a channel.

    A JPEG much larger than `side` is decoded at a reduced DCT scale, never below twice `side`. 16-bit greyscale keeps
    its high byte. Of an animation the first frame counts.

    Raises:
        DecodeError: the image has more than `max_pixels` pixels. Else whatever Pillow raises.
    """
    # Pillow's own limit is process-wide state, with a warning below it; ours is checked before any decoding.
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        image = Image.open(io.BytesIO(data))
    if image.width * image.height > max_pixels:
        raise DecodeError(f"{image.width} x {image.height} pixels, more than image.max_pixels={max_pixels}")
    image.draft(None, (2 * side, 2 * side))
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        upright = Image.fromarray(np.clip(np.asarray(upright) >> 8, 0, 255).astype(np.uint8))
    return upright


def decode(data: bytes, size: int, channels: int, max_pixels: int) -> NDArray[np.uint8]:
    """Pixels (size, size, channels), uint8.

    The whole image is opened as `open_upright` does, converted (alpha is dropped, not blended, when channels is 1 or
    3), and resized with antialiasing; the aspect ratio is not kept.

    Raises:
        DecodeError: the data is no image, is cut off, or has more than `max_pixels` pixels.
    """
    try:
        converted = open_upright(data, size, max_pixels).convert(_MODES[channels])
        if converted.size != (size, size):
            converted = converted.resize((size, size), Image.Resampling.BILINEAR)
    except UnidentifiedImageError as error:
        # Pillow's own text holds a memory address, and a quarantine row must be the same in every run.
        raise DecodeError("not an image of a known format") from error
    except Image.DecompressionBombError as error:
        raise DecodeError(str(error)) from error
    except _DAMAGE as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(one_line(error)) from error
    return np.asarray(converted).reshape(size, size, channels)
