"""Masks that come back as files are kept beside the votes, under the names of their content."""

import hashlib
import json

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile
from engine.pool.formats import format_of
from engine.storage.location import Location

FOLDER = "votes/masks"


def with_masks(answer: Answer, file: AnswerFile, home: Location) -> Answer:
    """The answer, where masks that are named as files beside the vendor's file are named as they are kept:
    votes/masks/SHA256.png. Run lengths stay as they are. A mask that is missing or no image is a fault."""
    if not isinstance(answer.value, list) or answer.fault:
        return answer
    kept = []
    for shape in answer.value:
        mask = shape.get("mask") if isinstance(shape, dict) else None
        if not isinstance(mask, str) or not isinstance(shape, dict):
            kept.append(shape)
            continue
        try:
            kept.append({**shape, "mask": _keep(mask, file, home)})
        except (InputError, OSError) as error:
            return answer._replace(fault=f"mask {mask!r}: {error}; put it beside {file.path}")
    return answer._replace(value=kept)  # type: ignore[arg-type]


def masks_of(value: str | None) -> set[str]:
    """The names below the campaign of the masks in a vote's value that are kept as files."""
    if not value or FOLDER not in value:
        return set()
    try:
        shapes = json.loads(value)
    except ValueError:
        # A class may have any name.
        return set()
    masks = [shape.get("mask") for shape in shapes if isinstance(shape, dict)] if isinstance(shapes, list) else []
    return {mask for mask in masks if isinstance(mask, str) and mask.startswith(f"{FOLDER}/")}


def _keep(mask: str, file: AnswerFile, home: Location) -> str:
    if file.beside is None:
        raise InputError("there is no folder to look for it in")
    if mask.startswith("/") or ".." in mask.split("/"):
        raise InputError("leads out of the folder")
    with file.beside(mask) as stream:
        content = stream.read()
    form = format_of(content)
    if form is None:
        raise InputError("is no image")
    name = f"{FOLDER}/{hashlib.sha256(content).hexdigest()}.{form.suffixes[0]}"
    if not (home / name).exists():
        (home / name).write_bytes(content)
    return name
