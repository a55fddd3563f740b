"""COCO: instances.json, out without annotations and back with them.

Images are found by `item_id` or by the name of the file. A class is an annotation's category: that of one without a
shape too, as in datumaro's image labels. Several categories at one image are several classes. COCO knows no annotators.
An image without annotations counts as not labelled: the format cannot say that nothing is in it.

The lists of the file may stand in any order, and an image's annotations anywhere: they are sorted on disk first.
"""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question
from engine.handoff.formats.coco_annotations import id_of, with_annotations
from engine.handoff.formats.grouped import Grouped
from engine.handoff.formats.json_stream import opening, read_items
from engine.handoff.formats.task_files import compact, json_file

_MARKS = (rb'"supercategory"', rb'"image_id".*"category_id"', rb'"category_id".*"image_id"', rb'"images".*"file_name"')


def write_tasks(batch: Outgoing) -> Iterator[tuple[str, bytes]]:
    """instances.json. Ids start at 1."""
    question = batch.question
    info = {"description": batch.name} | ({"instructions": question.instructions} if question.instructions else {})
    categories = [{"id": id_, "name": name, "supercategory": ""} for id_, name in enumerate(question.classes, 1)]
    images = [
        {"id": id_, "file_name": task.file, "width": task.width, "height": task.height, "item_id": task.item_id}
        | ({"coco_url": task.link} if task.link != task.file else {})
        for id_, task in enumerate(batch.tasks, 1)
    ]
    parts = {"info": info, "licenses": [], "categories": categories, "images": images, "annotations": []}
    yield "instances.json", json_file(parts)


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """An answer for each image of the file, then a fault for each image that only annotations name."""
    fix = "export COCO instances, with images, categories and annotations"
    if opening(file) == "[":
        raise InputError(f"{file.place}: a list, where COCO has an object; {fix}")
    names: dict[str, Any] = {}
    for category in _objects(file, "categories"):
        if names.setdefault(id_of(category, "id"), category.get("name")) != category.get("name"):
            raise InputError(f"{file.place}: two categories have the id {category.get('id')!r}; {fix}")
    is_shaped, number = question.task in ("boxes", "mask"), 0
    rows = (
        (id_of(entry, "image_id"), compact(entry if is_shaped else {"category_id": entry.get("category_id")}))
        for entry in _objects(file, "annotations")
    )
    with closing(Grouped(rows)) as annotations:
        for number, image in enumerate(_objects(file, "images"), 1):
            answer = Answer(f"image {number}", str(image.get("item_id") or image.get("file_name") or ""), None)
            if (own := annotations.take(id_of(image, "id"))) is None:
                fault = f"id {image.get('id')!r}, which an image before it has; give it, and its annotations, another"
                yield answer._replace(fault=fault)
            else:
                yield with_annotations(answer, question, [json.loads(text) for text in own], names)
        if not number:
            raise InputError(f"{file.place}: no images; {fix}")
        for key in annotations.left():
            yield Answer("annotations", "", None, fault=f"image_id {key} is not among the images; add that image")


def is_mine(path: str, head: bytes) -> bool:
    """An object with lists that have COCO's keys, in any order."""
    return path.endswith(".json") and head.lstrip()[:1] == b"{" and any(re.search(mark, head, re.S) for mark in _MARKS)


def _objects(file: AnswerFile, name: str) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(read_items(file, f"{name}.item"), 1):
        if not isinstance(entry, dict):
            raise InputError(f"{file.place}: entry {number} of {name} is no object; export COCO instances again")
        yield entry
