"""What V7 exports: an image's Darwin JSON 2.0, and tags as CSV."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Question, Shape
from engine.handoff.formats.answer_values import box, outline, with_value
from engine.handoff.formats.task_files import compact

_SHAPES = ("bounding_box", "polygon", "mask")
_RASTER = "raster_layer"
_PEOPLE = ("annotators", "reviewers")
"""Keys that name people, and are not kept."""


def read_item(file: AnswerFile, given: Any, question: Question) -> Answer:
    """The answer of one file. Raises InputError when it is not Darwin JSON 2.0."""
    item = given.get("item") if isinstance(given, dict) else None
    annotations = given.get("annotations") if isinstance(given, dict) else None
    if not isinstance(item, dict) or not isinstance(annotations, list) or not item.get("name"):
        raise InputError(f"{file.place}: no item with annotations; export Darwin JSON 2.0")
    answer = Answer("item", str(item["name"]), None)
    is_shaped = question.task in ("boxes", "mask")
    try:
        # A raster layer holds the pixels of all masks, and is an annotation beside them.
        layers = [entry[_RASTER] for entry in annotations if _RASTER in entry]
        own = [entry for entry in annotations if ("tag" not in entry if is_shaped else "tag" in entry)]
        own = [entry for entry in own if _RASTER not in entry]
        people = {person.get("email") or person.get("full_name") for entry in own for person in _people(entry)}
        source = item.get("source_info") or {}
        answer = answer._replace(
            annotator=str(people.pop() or "") if len(people) == 1 else "",
            # The item's id stays when a tag is taken away and another is given.
            answer_id=str(source.get("item_id") or (own[0].get("id") if len(own) == 1 else "") or ""),
        )
        labels = [entry["name"].strip() for entry in own]
    except (AttributeError, KeyError, TypeError) as error:
        return answer._replace(fault=f"an annotation is not as V7 writes it ({error}); export it again")
    shapes = (_shape(entry, layers, question) for entry in own)
    answer = with_value(answer, question, labels, shapes)
    raw = [{key: value for key, value in entry.items() if key not in _PEOPLE} for entry in own]
    raw += [{_RASTER: layer} for layer in layers]
    return answer._replace(raw=compact(raw)) if is_shaped and own else answer


def read_tags(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """The answers of a CSV of tags: an image a line, its path first. Raises InputError when it is not that.

    The format has no mark at its end: a last tag that is cut off is seen where it is no class of the question.
    """
    if question.task not in ("class", "classes"):
        raise InputError(f"{file.place}: tags, where {question.task} are asked for; export Darwin JSON 2.0")
    last = ""

    def noted(line: str) -> str:
        nonlocal last
        last = line
        return line

    with file.open() as stream:
        rows = csv.reader(map(noted, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")), strict=True)
        try:
            for path, *cells in filter(None, rows):
                tags = [tag.strip() for tag in cells if tag.strip()]
                if last[-1:] not in ("\n", "\r") and not set(tags[-1:]) <= set(question.classes):
                    raise InputError(f"{file.place}: ends within {tags[-1]!r}, which is no class; export it again")
                yield with_value(Answer(f"line {rows.line_num}", path.strip(), None), question, tags, ())
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{file.place}: no CSV in UTF-8 ({error}); save it as CSV in UTF-8") from error


def _people(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from entry.get("annotators") or []


def _shape(entry: dict[str, Any], layers: list[dict[str, Any]], question: Question) -> Shape:
    """Raises KeyError, TypeError or ValueError for what is none. A polygon comes with its bounding box."""
    label, wanted = entry["name"].strip(), _SHAPES if question.task == "boxes" else _SHAPES[::-1]
    kind = next((kind for kind in wanted if kind in entry), "")
    if kind == "bounding_box":
        at = entry[kind]
        return box(label, at["x"], at["y"], at["w"], at["h"])
    if kind == "polygon":
        paths = entry[kind].get("paths") or [entry[kind]["path"]]
        return outline(label, [[(point["x"], point["y"]) for point in path] for path in paths], entry[kind])
    if kind != "mask":
        raise ValueError("an annotation that is no bounding box, polygon or mask")
    for layer in layers:
        if (number := layer["mask_annotation_ids_mapping"].get(entry["id"])) is not None:
            # Pairs of a mask's number and a length; of this mask alone, inside is 1.
            values, lengths = layer["dense_rle"][::2], layer["dense_rle"][1::2]
            runs = [part for value, n in zip(values, lengths, strict=True) for part in (int(value == number), n)]
            return {"label": label, "mask": {"dense_rle": runs}}
    raise ValueError(f"mask {entry['id']} is in no raster layer")
