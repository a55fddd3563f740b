"""A row of the output manifest of Ground Truth: the answers of all jobs that saw the image."""

import re
from collections.abc import Callable
from typing import Any

from engine.errors import InputError
from engine.handoff.exchange import Answer, Question
from engine.handoff.formats.cells import moment_or_none, value_of
from engine.tables.row_stream import Row
from engine.tables.values import ClassNumber, text_of

_TYPES = {
    "class": "image-classification",
    "classes": "image-classification-multilabel",
    "boxes": "object-detection",
    "mask": "semantic-segmentation",
}
_META = "-metadata"


def answer_of(where: str, row: Row, question: Question) -> Answer:
    """The newest answer to the question in a row of the manifest."""
    item, value, raw = "", None, ""
    try:
        item = text_of(row.get("item-id"), "item-id") or text_of(row["source-ref"], "source-ref")
        name = _attribute(row, question)
        meta = row[name + _META] if name else {}
        failure = text_of(meta.get("failure-reason"), "failure-reason")
        moment = moment_or_none(meta.get("creation-date"), "creation-date")
        if row.get(name) is not None and not failure:
            value, raw = value_of(_given(row[name], meta, question), question)
        job = text_of(meta.get("job-name"), "job-name")
    except InputError as error:
        return Answer(where, item, None, fault=str(error))
    skipped = bool(failure)
    return Answer(where, item, value, answer_id=job, answered_at=moment, skipped=skipped, reason=failure, raw=raw)


def type_of(question: Question) -> str:
    """The type of a job that asks the question, in the metadata of its answers."""
    return f"groundtruth/{_TYPES[question.task]}"


def metas_of(row: Row) -> dict[str, dict[str, Any]]:
    """What each job of a chain says of its answer, by the name of the answer."""
    pairs = [(name, meta) for name, meta in row.items() if name.endswith(_META) and isinstance(meta, dict)]
    return {name.removesuffix(_META): meta for name, meta in pairs}


def _attribute(row: Row, question: Question) -> str:
    """The name of the newest answer to the question; empty if there is none. Raises InputError if none is newest."""
    wanted = type_of(question)
    own = [(name, meta) for name, meta in metas_of(row).items() if meta.get("type", wanted) == wanted]
    found = sorted((str(meta.get("creation-date", "")), name) for name, meta in own)
    if len(found) > 1 and found[-1][0] == found[-2][0]:
        raise InputError(f"answers {found[-1][1]!r} and {found[-2][1]!r} are of the same time; keep one of them")
    return found[-1][1] if found else ""


def _given(answer: Any, meta: dict[str, Any], question: Question) -> Any:
    """The answer with names of classes, as `value_of` reads it. A number without a name stands for the class at this
    place of label_categories.json, which the question of now does not say. Raises InputError for what is no number."""
    names = meta.get("class-map")

    def name_of(index: Any) -> str:
        if isinstance(names, dict) and str(index) in names:
            return str(names[str(index)])
        if not re.fullmatch("[0-9]{1,6}", str(index)):
            raise InputError(f"class {index!r} has no name; put it into label_categories.json")
        return ClassNumber(f"#{index}")

    if question.task == "class":
        return meta.get("class-name") or name_of(answer)
    if question.task == "classes" and isinstance(answer, list):
        return [name_of(index) for index in answer]
    if question.task == "boxes" and isinstance(answer, dict) and isinstance(answer.get("annotations"), list):
        return [_box(given, name_of) for given in answer["annotations"]]
    colors = meta.get("internal-color-map")
    if question.task == "mask" and isinstance(colors, dict) and all(isinstance(c, dict) for c in colors.values()):
        classes = [color for color in colors.values() if color.get("class-name") != "BACKGROUND"]
        return [{"label": c.get("class-name"), "mask": {"file": answer, "color": c.get("hex-color")}} for c in classes]
    raise InputError(f"the answer is {str(answer)[:60]!r}; give the manifest of a job for {question.task}")


def _box(given: Any, name_of: Callable[[Any], str]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"a box is {str(given)[:60]!r}, and not an object; correct it")
    box = [given.get(side) for side in ("left", "top", "width", "height")]
    return {"label": name_of(given.get("class_id")), "box": box}
