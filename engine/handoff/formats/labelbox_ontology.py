"""Labelbox's ontology: what asks a question, and the annotations that answer it."""

import colorsys
from collections.abc import Iterable
from typing import Any

from engine.errors import InputError
from engine.handoff.exchange import Question, Shape, Value
from engine.handoff.formats.answer_values import box, one_of, outline
from engine.handoff.formats.task_files import compact
from engine.tables.values import text_of

CLASS = "class"
"""The name of the classification."""
_TOOLS = {"boxes": "rectangle", "mask": "raster-segmentation"}


def ontology(question: Question) -> dict[str, Any]:
    """The ontology in the form that the SDK's `OntologyBuilder.from_dict` takes."""
    if kind := _TOOLS.get(question.task):
        return {
            "tools": [_tool(kind, question.classes, n) for n in range(len(question.classes))],
            "classifications": [],
        }
    asked = {
        "type": "radio" if question.task == "class" else "checklist",
        "name": CLASS,
        "instructions": question.instructions or CLASS,
        "required": question.task == "class",
        "scope": "global",
        "options": [{"label": name, "value": name, "options": []} for name in question.classes],
    }
    return {"tools": [], "classifications": [asked]}


def _tool(kind: str, classes: list[str], number: int) -> dict[str, Any]:
    # One tool a class: two of a name are refused.
    parts = colorsys.hsv_to_rgb(number / len(classes), 0.8, 0.9)
    color = "#" + "".join(f"{round(255 * part):02x}" for part in parts)
    return {"tool": kind, "name": classes[number], "required": False, "color": color, "classifications": []}


def value_of(annotations: dict[str, Any], question: Question) -> tuple[Value, str]:
    """The value of a label, and its own JSON of shapes. Raises InputError if it does not answer the question."""
    if question.task not in ("class", "classes"):
        objects = annotations.get("objects") or []
        return [_shape(found) for found in objects], compact(objects)
    answered = annotations.get("classifications") or []
    # A project may ask more than this, and call this by another name.
    answered = [found for found in answered if found.get("name") == CLASS] or answered
    options = [option for found in answered for option in _options(found)]
    found = sorted({text_of(option["name"], "an answer") for option in options})
    return found if question.task == "classes" else one_of(found), ""


def _options(classification: dict[str, Any]) -> Iterable[dict[str, Any]]:
    if option := classification.get("radio_answer"):
        yield option
    yield from classification.get("checklist_answers") or []


def _shape(found: dict[str, Any]) -> Shape:
    label = text_of(found["name"], "an object's name")
    if at := found.get("bounding_box"):
        return box(label, at["left"], at["top"], at["width"], at["height"])
    if polygon := found.get("polygon"):
        return outline(label, [[(point["x"], point["y"]) for point in polygon]], None)
    if mask := found.get("mask") or found.get("composite_mask"):
        return {"label": label, "mask": mask}
    raise InputError(f"an object {label!r} that is no box, polygon or mask")
