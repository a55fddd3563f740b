"""Masks that come back as files are kept beside the votes, under the names of their content."""

import hashlib
import json
from typing import Any

import pyarrow as pa

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Shape
from engine.pool.formats import format_of
from engine.pool.mask_files import MaskError, png_sides, require_size
from engine.pool.mask_source import KEPT, MaskSource
from engine.storage.location import Location

MOST_BYTES = 256 << 20
"""A few bytes in an archive may stand for any number."""
Found = dict[str, tuple[AnswerFile, str]]
"""Masks by the name that they are kept under: the file that names each, and its name there."""


def with_masks(
    answer: Answer, file: AnswerFile, found: Found, shown: tuple[int, int] | None, source: MaskSource | None = None
) -> Answer:
    """The answer, where masks that are named as files beside the vendor's file are named as `keep_masks` keeps them:
    votes/masks/SHA256.png; they are added to `found`. Run lengths stay as they are.

    A mask that is missing, no image, or of another size than its image, is a fault; and with `source`, from which the
    task learner will read it, every shape that could not be learned. `shown` are the height and width of the image as
    it was sent, None where it never was.
    """
    if not isinstance(answer.value, list):
        return answer
    kept = list[Any]()
    for shape in answer.value:
        if not isinstance(shape, dict):
            kept.append(shape)
            continue
        mask, content = shape.get("mask"), b""
        what = f"mask {mask!r}" if isinstance(mask, str) else "label"
        try:
            if isinstance(mask, str):
                content = _read(file, mask)
                kept.append({**shape, "mask": _named(content, mask, file, found)})
            else:
                kept.append(shape)
            if shown is not None:
                _check(shape, content, shown, source)
        except (InputError, OSError) as error:
            return answer._replace(fault=f"{what}: {error}; put it beside {file.path}")
        except MaskError as error:
            return answer._replace(fault=f"{what} {error}")
    return answer._replace(value=kept)


def _check(shape: Shape, content: bytes, shown: tuple[int, int], source: MaskSource | None) -> None:
    """Raises MaskError for a shape that could not be learned, or whose mask, a PNG file, is of another size."""
    if source is not None:
        source.check(shape, content, *shown)
    elif (form := format_of(content)) and form.name == "PNG":
        # Nobody said yet which ids are classes.
        require_size(png_sides(content), *shown)


def masks_of(value: str | None) -> set[str]:
    """The names below the campaign of the masks in a vote's value that are kept as files."""
    if not value or KEPT not in value:
        return set()
    try:
        shapes = json.loads(value)
    except ValueError:
        # A class may have any name.
        return set()
    masks = [shape.get("mask") for shape in shapes if isinstance(shape, dict)] if isinstance(shapes, list) else []
    return {mask for mask in masks if isinstance(mask, str) and mask.startswith(f"{KEPT}/")}


def keep_masks(home: Location, values: pa.ChunkedArray, found: Found) -> None:
    """Write the masks that these values name, where they are not there yet."""
    for name in {name for value in values.to_pylist() for name in masks_of(value)} & found.keys():
        if not (home / name).exists():
            (home / name).write_bytes(_read(*found[name]))


def _read(file: AnswerFile, mask: str) -> bytes:
    if file.beside is None:
        raise InputError("there is no folder to look for it in")
    if mask.startswith("/") or ".." in mask.split("/"):
        raise InputError("leads out of the folder")
    with file.beside(mask) as stream:
        content: bytes = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise MaskError(f"has more than {MOST_BYTES >> 20} MiB; give a smaller file")
    return content


def _named(content: bytes, mask: str, file: AnswerFile, found: Found) -> str:
    form = format_of(content)
    if form is None:
        raise MaskError("is no image; give a PNG file")
    name = f"{KEPT}/{hashlib.sha256(content).hexdigest()}.{form.suffixes[0]}"
    found[name] = file, mask
    return name
