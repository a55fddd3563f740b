"""Shapes as annotators draw them, as pixels: polygons, and run lengths in the forms of the vendors."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.pool.mask_files import MaskError

Rings = Sequence[Sequence[Sequence[float]]]
_FORMS = "polygons, run lengths of COCO, CVAT, Label Studio or V7, or PNG files"


def pixels_of(shape: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels (H, W) of an image that are in a shape: see `engine.handoff.exchange.Shape`; not of a mask in a file.

    Raises MaskError for a shape of a form that is not known, of an image of another size, or damaged.
    """
    try:
        return _pixels_of(shape, height, width)
    except MaskError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError) as error:
        name = shape.get("label", "")
        raise MaskError(f"has a shape {name!r} that cannot be read ({error!r}); give {_FORMS}") from error


def filled(rings: Rings, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels (H, W) whose middle is in an odd number of the rings of points (x, y): a ring in another is a hole."""
    turn = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        for (x, y), (next_x, next_y) in pairwise([*ring, ring[0]]):
            if y == next_y:
                continue
            low, high = (min(max(int(np.ceil(at - 0.5)), 0), height) for at in sorted((y, next_y)))
            row = np.arange(low, high)
            at = x + (row + 0.5 - y) * (next_x - x) / (next_y - y)
            # From here on to the right a row is on the other side of this edge.
            np.add.at(turn, (row, np.clip(np.ceil(at - 0.5), 0, width).astype(np.int64)), 1)
    is_in: NDArray[np.bool_] = turn.cumsum(axis=1)[:, :width] % 2 == 1
    return is_in


def _pixels_of(shape: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    if "polygon" in shape:
        return filled([shape["polygon"]], height, width)
    mask = shape["mask"]
    if isinstance(mask, list):
        # COCO's rings are parts of an object, which may overlap.
        parts = (filled([list(zip(ring[::2], ring[1::2], strict=True))], height, width) for ring in mask)
        return _union(parts, height, width)
    if "counts" in mask:
        _require_size((mask["size"][0], mask["size"][1]), height, width)
        counts = mask["counts"]
        runs = coco_counts(counts) if isinstance(counts, str) else counts
        return _from_runs(runs, height * width).reshape(width, height).T
    if "dense_rle" in mask:
        values, lengths = mask["dense_rle"][::2], mask["dense_rle"][1::2]
        return _repeated(values, lengths, height * width).reshape(height, width)
    if mask.get("format") == "rle":
        _require_size((mask["size"][1], mask["size"][0]), height, width)
        return brush_pixels(mask["rle"], height, width)
    if "left" in mask:
        return _in_box(mask, height, width)
    if "paths" in mask:
        return filled([[(point["x"], point["y"]) for point in path] for path in mask["paths"]], height, width)
    if mask.get("polygons"):
        _require_size((mask["height"], mask["width"]), height, width)
        scale = np.array([width, height])
        polygons = [[(np.reshape(ring, (-1, 2)) * scale).tolist() for ring in rings] for rings in mask["polygons"]]
        return _union((filled(rings, height, width) for rings in polygons), height, width)
    raise MaskError(f"has a shape of a form that is not read ({', '.join(map(str, mask))}); give {_FORMS}")


def coco_counts(text: str) -> list[int]:
    """COCO's run lengths from its text (cocoapi, maskApi.c, rleFrString): 5 bits a character, each from the third on
    less the one that is two before."""
    found: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value = shift = 0
    return found


def brush_pixels(data: list[int], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels of Label Studio's brush, by the last of four channels (label-studio-converter, brush.py, decode_rle).

    Bits: the number of values (32), their bits less 1 (5), four lengths' bits less 1 (4 each); then blocks of: whether
    one value is repeated (1), which length (2), the count less 1, and that value, or as many values.
    """
    bits = np.unpackbits(np.array(data, np.uint8))
    place = 0

    def read(count: int) -> int:
        nonlocal place
        if place + count > len(bits):
            raise MaskError("has a brush whose run lengths are cut off; export it again")
        part, place = bits[place : place + count], place + count
        return int(part @ (1 << np.arange(count - 1, -1, -1)))

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if total != 4 * height * width:
        raise MaskError(f"has a brush of {total} values, not of {width} x {height} pixels; export it again")
    values, at = np.zeros(total, np.uint32), 0
    while at < total:
        is_run, count = read(1), read(sizes[read(2)]) + 1
        values[at : at + count] = read(word) if is_run else [read(word) for _ in range(min(count, total - at))]
        at += count
    return values.reshape(height, width, 4)[:, :, 3] > 0


def _in_box(mask: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    left, top, columns, rows = (int(mask[name]) for name in ("left", "top", "width", "height"))
    if left < 0 or top < 0 or left + columns > width or top + rows > height:
        raise MaskError(f"has a shape that reaches out of the image of {width} x {height} pixels; draw it again")
    found = np.zeros((height, width), np.bool_)
    found[top : top + rows, left : left + columns] = _from_runs(mask["rle"], rows * columns).reshape(rows, columns)
    return found


def _from_runs(runs: Sequence[int], total: int) -> NDArray[np.bool_]:
    """Runs of outside and inside in turn."""
    return _repeated(np.arange(len(runs)) % 2, runs, total)


def _repeated(values: Any, lengths: Any, total: int) -> NDArray[np.bool_]:
    if min(lengths, default=0) < 0 or sum(lengths) != total:
        raise MaskError(f"has run lengths of {sum(lengths)} pixels, where there are {total}; is it of this image?")
    return np.repeat(np.asarray(values) != 0, lengths)


def _union(parts: Iterable[NDArray[np.bool_]], height: int, width: int) -> NDArray[np.bool_]:
    found = np.zeros((height, width), np.bool_)
    for part in parts:
        found |= part
    return found


def _require_size(given: tuple[Any, Any], height: int, width: int) -> None:
    if given != (height, width):
        sizes = f"{given[1]} x {given[0]} pixels, its image has {width} x {height}"
        raise MaskError(f"has a shape of an image of {sizes}; draw it on the image that was sent")
