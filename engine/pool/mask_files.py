"""Masks as files: a PNG whose pixels are numbers, the ids of classes; and which class an id is.

Colours are no ids: a palette's indices are read as they are, and an image of colours is refused.
"""

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from engine.errors import one_line
from engine.pool.formats import format_of
from vaal.task.kinds import VOID

MOST_LISTED = 8
"""Ids in an error."""
_GREY, _SIZE_AT, _DEPTH_AT, _COLOUR_AT = 0, 16, 24, 25
"""A colour type, and places in a PNG's header."""


class MaskError(ValueError):
    """A mask that cannot be used. The text is one line with the fix."""


def read_ids(content: bytes, max_pixels: int) -> NDArray[Any]:
    """The ids (H, W) in a PNG, as it is stored: the indices of a palette, grey levels of 1 to 16 bits.

    Raises MaskError for what is no PNG of ids, is damaged, or has more than `max_pixels`.
    """
    form = format_of(content)
    if form is not None and form.name == "JPEG":
        raise MaskError("is a JPEG, whose compression changes the ids of pixels; give a PNG")
    if form is None or form.name != "PNG":
        raise MaskError("is no PNG; give a PNG whose pixels are ids of classes")
    if b"IEND" not in content or len(content) <= _COLOUR_AT:
        raise MaskError("is cut off: a PNG without its end; write it again")
    height, width = png_sides(content)
    if width * height > max_pixels:
        raise MaskError(f"has {width} x {height} pixels, more than image.max_pixels={max_pixels}; raise that")
    try:
        image = PngImageFile(io.BytesIO(content))
        image.load()
    except Exception as error:
        # Pillow raises many.
        raise MaskError(f"is damaged: {one_line(error)}; write it again") from error
    if image.mode not in ("1", "L", "P", "I;16", "I"):
        why = f"is a picture in colours ({image.mode}), which are no ids"
        raise MaskError(f"{why}; give a PNG with a palette (mode P) or grey levels (mode L) that are ids of classes")
    found: NDArray[Any] = np.asarray(image)
    depth = content[_DEPTH_AT]
    if content[_COLOUR_AT] == _GREY and depth in (2, 4):
        # Pillow spreads few levels over all 256.
        found = found // (255 // (2**depth - 1))
    return found.astype(np.uint8) if image.mode == "1" else found


def png_sides(content: bytes) -> tuple[int, int]:
    """Height and width of a PNG, as it says at its start."""
    width, height = struct.unpack_from(">II", content, _SIZE_AT)
    return height, width


def require_size(sides: tuple[int, ...], height: int, width: int) -> None:
    """Raises MaskError if a mask has other sides, height and width, than its image."""
    if sides != (height, width):
        sizes = f"{sides[1]} x {sides[0]} pixels, and its image has {width} x {height}"
        raise MaskError(f"has {sizes}; give the mask at the size of the image")


def class_numbers(ids: NDArray[Any], num_classes: int, void: frozenset[int]) -> NDArray[np.uint8]:
    """The numbers of the classes (H, W), 255 for void. Ids are numbered in their order, without those of `void`.

    So with void 255 id k is class k, and with void 0 it is class k - 1.

    Raises MaskError for other ids, with how many pixels have them.
    """
    known = [id_ for id_ in range(num_classes + len(void)) if id_ not in void][:num_classes]
    table = np.full(max(1 << 8, int(ids.max()) + 1), -1, np.int16)
    table[[id_ for id_ in void if id_ < len(table)]] = VOID
    table[[id_ for id_ in known if id_ < len(table)]] = [n for n, id_ in enumerate(known) if id_ < len(table)]
    found: NDArray[np.int16] = table[ids]
    if (found < 0).any():
        unknown, counts = np.unique(ids[found < 0], return_counts=True)
        order = np.argsort(-counts)
        listed = ", ".join(f"{unknown[n]} ({counts[n] / ids.size:.1%} of the pixels)" for n in order[:MOST_LISTED])
        more = f" and {len(order) - MOST_LISTED} more" if len(order) > MOST_LISTED else ""
        why = f"has ids {listed}{more}; those of the {num_classes} classes are {_in_words(known)}"
        raise MaskError(f"{why}; name what is void in labels.void, or correct the mask")
    return found.astype(np.uint8)


def one_class(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """The pixels of a mask of one class: those that are not 0. Raises MaskError for more than two ids."""
    values = np.unique(ids)
    if len(values) > 2 or (len(values) == 2 and values[0]):
        some = ", ".join(map(str, values[:MOST_LISTED]))
        raise MaskError(f"is of one class and has the ids {some}; give 0 and another, or leave the class out")
    is_in: NDArray[np.bool_] = ids != 0
    return is_in


def _in_words(numbers: list[int]) -> str:
    is_run = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return f"{numbers[0]} to {numbers[-1]}" if is_run else ", ".join(map(str, numbers))
