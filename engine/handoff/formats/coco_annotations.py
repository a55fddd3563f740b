"""The annotations of one image in a COCO file."""

from typing import Any

from engine.handoff.exchange import Answer, Question, Shape
from engine.handoff.formats.answer_values import box, outline, with_value
from engine.handoff.formats.task_files import compact


def with_annotations(answer: Answer, question: Question, own: list[Any], names: dict[str, Any]) -> Answer:
    """The image's answer. `names` are those of the categories by id."""
    if not answer.item:
        return answer._replace(fault="neither file_name nor item_id; add one")
    labels = (_category(entry, names) for entry in own)
    shapes = (_shape(entry, _category(entry, names), question) for entry in own)
    answer = with_value(answer, question, labels, shapes)
    return answer._replace(raw=compact(own)) if question.task in ("boxes", "mask") and own else answer


def id_of(entry: dict[str, Any], name: str) -> str:
    """Ids are whole numbers or text, and some programs write either for the same."""
    value = entry.get(name)
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _category(entry: dict[str, Any], names: dict[str, Any]) -> str:
    if (key := id_of(entry, "category_id")) not in names:
        raise ValueError(f"category_id {key} is not among the categories")
    return str(names[key])


def _shape(entry: dict[str, Any], label: str, question: Question) -> Shape:
    segmentation = entry.get("segmentation")
    if question.task == "boxes" and entry.get("bbox"):
        return box(label, *entry["bbox"])
    if isinstance(segmentation, dict):
        return {"label": label, "mask": segmentation}
    if not segmentation:
        raise ValueError(f"an annotation without {'bbox' if question.task == 'boxes' else 'segmentation'}")
    rings = [list(zip(ring[::2], ring[1::2], strict=True)) for ring in segmentation]
    return outline(label, rings, segmentation)
