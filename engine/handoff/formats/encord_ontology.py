"""A question as the structure of an Encord ontology."""

from colorsys import hsv_to_rgb
from typing import Any

from engine.handoff.exchange import Question


def ontology(question: Question) -> dict[str, Any]:
    """A radio button, a checklist, or objects. Features have numbers as hashes: unique in the ontology is enough."""
    if question.task in ("boxes", "mask"):
        shape = "bounding_box" if question.task == "boxes" else "bitmask"
        objects = [
            {"id": str(n), "name": name, "color": _color(n), "shape": shape, "featureNodeHash": f"{n:08x}"}
            for n, name in enumerate(question.classes, 1)
        ]
        return {"objects": objects, "classifications": []}
    options = [
        {"id": f"1.1.{n}", "label": name, "value": name, "featureNodeHash": f"{n + 2:08x}"}
        for n, name in enumerate(question.classes, 1)
    ]
    kind = "radio" if question.task == "class" else "checklist"
    attribute: dict[str, Any] = {
        "id": "1.1",
        "name": question.task,
        "type": kind,
        "required": question.task == "class",
        "dynamic": False,
    }
    attribute |= {"featureNodeHash": f"{2:08x}", "options": options}
    classification = {"id": "1", "featureNodeHash": f"{1:08x}", "attributes": [attribute]}
    return {"objects": [], "classifications": [classification]}


def _color(number: int) -> str:
    """Neighbours get hues that are far apart."""
    return "#" + "".join(f"{round(255 * part):02X}" for part in hsv_to_rgb(number * 0.618 % 1, 0.9, 0.85))
