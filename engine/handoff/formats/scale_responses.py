"""What the response of a Scale task says."""

from typing import Any

from engine.errors import InputError
from engine.handoff.exchange import Shape
from engine.handoff.formats.answer_values import box, outline
from engine.tables.values import text_of

FIELD = "class"
"""The field that asks for classes."""


def choices(annotations: dict[str, Any]) -> list[list[str]]:
    """The classes of each response to the field, sorted. Raises InputError if there is none."""
    others = [field for field in annotations.values() if field.get("type") == "category"]
    field = annotations.get(FIELD) or (others[0] if len(others) == 1 else None)
    if field is None:
        raise InputError(f"no field {FIELD!r} among {', '.join(map(repr, annotations)) or 'none'}")
    found = field["response"]
    # One response may come without the list of all.
    responses = found if all(isinstance(one, list) for one in found) else [found]
    if not responses:
        raise InputError("no response")
    return [sorted({text_of(choice, "a choice") for choice in one}) for one in responses]


def shapes(response: dict[str, Any]) -> list[Shape]:
    """Boxes and polygons, or a mask for each label: the index that its pixels have in an image."""
    annotations = response["annotations"]
    if isinstance(annotations, dict):
        image = annotations["combined"]["indexedImage"]
        labels = response.get("labelMapping") or annotations["labelMapping"]
        pairs = [
            (name, one) for name, found in labels.items() for one in (found if isinstance(found, list) else [found])
        ]
        return [{"label": name, "mask": {"indexed_image": image, "index": one["index"]}} for name, one in pairs]
    return [_shape(found) for found in annotations]


def _shape(found: dict[str, Any]) -> Shape:
    kind, label = found["type"], text_of(found.get("label"), "a label")
    if kind == "box" and label:
        return box(label, found["left"], found["top"], found["width"], found["height"])
    if kind == "polygon" and label:
        return outline(label, [[(point["x"], point["y"]) for point in found["vertices"]]], None)
    raise InputError(f"an annotation of type {kind!r} with the label {label!r}, which is not a labelled box or polygon")
