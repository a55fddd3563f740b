"""A label row of Encord: the answers and objects of its images."""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from engine.handoff.exchange import Answer, Question, Shape
from engine.handoff.formats.answer_values import box, outline, with_value
from engine.handoff.formats.task_files import compact

_DONE = ("LABELLED", "REVIEW_IN_PROGRESS", "REVIEWED", "REVIEWED_TWICE")
_PEOPLE = ("createdBy", "lastEditedBy", "reviews")
"""Keys that name people, and are not kept."""


def read_row(row: dict[str, Any], where: str, question: Question) -> Iterator[Answer]:
    """An answer for each image of a label row: one, or several of an image group."""
    branch = row.get("branch_name") or "main"
    for unit_hash, unit in row["data_units"].items():
        if not isinstance(unit, dict) or not isinstance(unit.get("labels") or {}, dict):
            yield Answer(where, "", None, fault=f"data unit {unit_hash} is no object; export it again")
            continue
        metadata = unit.get("client_metadata") or row.get("client_metadata") or {}
        item = metadata.get("item_id") if len(row["data_units"]) == 1 else None
        # Each branch of a row is an answer of its own: consensus projects have one for each annotator.
        names = [row.get("label_hash"), unit_hash, branch if branch != "main" else None]
        answer_id = "/".join(str(name) for name in names if name)
        answer = Answer(where, str(item or unit.get("data_title") or ""), None, answer_id=answer_id)
        try:
            yield (_objects if question.task in ("boxes", "mask") else _answers)(answer, row, unit, question)
        except (AttributeError, KeyError, TypeError) as error:
            yield answer._replace(fault=f"not as Encord writes it ({type(error).__name__}: {error}); export it again")


def _answers(answer: Answer, row: dict[str, Any], unit: dict[str, Any], question: Question) -> Answer:
    here = {entry["classificationHash"]: entry for entry in (unit.get("labels") or {}).get("classifications", [])}
    found: list[tuple[str, list[Any], dict[str, Any]]] = []
    for hash_, given in (row.get("classification_answers") or {}).items():
        # A classification of the whole row stands at none of its images: then there is one image.
        if hash_ not in here and len(row["data_units"]) > 1:
            continue
        by, entries = given | here.get(hash_, {}), given["classifications"]
        found += [(entry["name"], entry["answers"], by) for entry in entries if isinstance(entry.get("answers"), list)]
    own = [each for each in found if each[0] == question.task]
    if not own and len(questions := {name for name, _, _ in found}) > 1:
        what = f"answers to several questions, {', '.join(map(repr, sorted(questions)[:5]))}"
        return answer._replace(fault=f"{what}; call the one that counts {question.task!r}")
    own = own or found
    labels = [option.get("name") or option["value"] for _, options, _ in own for option in options]
    return with_value(_signed(answer, [by for _, _, by in own]), question, labels, (), is_done=bool(own))


def _objects(answer: Answer, row: dict[str, Any], unit: dict[str, Any], question: Question) -> Answer:
    objects = (unit.get("labels") or {}).get("objects", [])
    is_done = row.get("annotation_task_status") == "COMPLETED" or row.get("label_status") in _DONE
    shapes = (_shape(given, unit) for given in objects)
    answer = with_value(_signed(answer, objects), question, (), shapes, is_done=is_done)
    raw = [{key: value for key, value in given.items() if key not in _PEOPLE} for given in objects]
    return answer._replace(raw=compact(raw)) if objects else answer


def _signed(answer: Answer, parts: list[dict[str, Any]]) -> Answer:
    """With the annotator, where the parts of the answer are of one, and the time of the last change."""
    authors = {str(part.get("lastEditedBy") or part.get("createdBy") or "") for part in parts}
    times = [at for part in parts if (at := _moment(part.get("lastEditedAt") or part.get("createdAt")))]
    return answer._replace(
        annotator=authors.pop() if len(authors) == 1 else "", answered_at=max(times) if times else None
    )


def _moment(text: Any) -> datetime | None:
    """Encord writes the times of mail, and its API those of ISO 8601."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (TypeError, ValueError):
            continue
    return None


def _shape(given: dict[str, Any], unit: dict[str, Any]) -> Shape:
    """Raises KeyError or ValueError for what is no box, polygon or bitmask. Encord's lengths are parts of the image."""
    label, kind, width, height = given["name"], given["shape"], unit["width"], unit["height"]
    if kind in ("bounding_box", "rotatable_bounding_box"):
        is_rotated = kind != "bounding_box"
        at = given["rotatableBoundingBox" if is_rotated else "boundingBox"]
        found = box(label, *_pixels([at["x"], at["y"], at["w"], at["h"]], width, height))
        return found | ({"rotation": float(at["theta"])} if is_rotated else {})
    if kind == "bitmask":
        return {"label": label, "mask": given["bitmask"]}
    if kind != "polygon":
        raise ValueError(f"a {kind} is no box, polygon or bitmask")
    points = given.get("polygon") or {}
    points = [points[key] for key in sorted(points, key=int)] if isinstance(points, dict) else points
    flat = [[part for point in points for part in (point["x"], point["y"])]]
    rings = [ring for polygon in given.get("polygons") or [] for ring in polygon] or flat
    scaled = [_pixels(ring, width, height) for ring in rings]
    raw = {"polygons": given.get("polygons"), "width": width, "height": height}
    return outline(label, [list(zip(ring[::2], ring[1::2], strict=True)) for ring in scaled], raw)


def _pixels(parts: list[float], width: int, height: int) -> list[float]:
    """x, y, x, y and so on. Beyond a thousandth of a pixel there is only the error of the product."""
    return [round(part * (height if n % 2 else width), 3) for n, part in enumerate(parts)]
