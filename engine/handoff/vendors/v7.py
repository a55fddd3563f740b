"""V7 Darwin: requests that register the images and the classes out, Darwin JSON 2.0 or a CSV of tags back.

Sent: each line of register_items.jsonl is the body of a POST /api/v2/teams/TEAM/items/register_existing. The dataset's
slug is the batch's name in the form that V7 gives a slug. The storage's slug is the bucket's name where links are s3://
or gs://; elsewhere it is the word STORAGE_SLUG, to be replaced by the storage's name in V7. The keys of images that are
files are their paths below this folder: copy it to the storage, or upload the images by `darwin dataset push` instead.
classes.json is a list of bodies for POST /api/teams/TEAM/annotation_classes; instructions.txt is for the dataset.

Read: a Darwin JSON file an image. An image without annotations counts as not labelled: the format does not say more.
Where several people are named at an answer, it is that of all of them. In a CSV of tags, each line is a path and tags.
"""

import posixpath
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from engine.handoff.formats.darwin import read_item, read_tags
from engine.handoff.formats.json_stream import read_items
from engine.handoff.formats.task_files import json_file, json_line

_REQUEST_IMAGES = 10
_TYPES = {"class": "tag", "classes": "tag", "boxes": "bounding_box", "mask": "mask"}
_TAGGED_PATH = re.compile(rb'(?:\xef\xbb\xbf)?"?/[^,\r\n]*\.[A-Za-z]{3,4}"?[,\r\n]')


def write_tasks(batch: Outgoing) -> Iterator[tuple[str, bytes]]:
    """register_items.jsonl and classes.json."""
    slug = re.sub(r"[^a-z0-9]+", "-", batch.name.lower()).strip("-")
    starts = range(0, len(batch.tasks), _REQUEST_IMAGES)
    requests = (_request(slug, batch.tasks[start : start + _REQUEST_IMAGES]) for start in starts)
    yield "register_items.jsonl", b"".join(map(json_line, requests))
    kind, color = _TYPES[batch.question.task], {"_color": "auto"}
    classes = [{"name": name, "annotation_types": [kind], "metadata": color} for name in batch.question.classes]
    yield "classes.json", json_file(classes)


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """The image of a Darwin JSON file, or those of a CSV of tags."""
    if file.path.lower().endswith(".csv"):
        yield from read_tags(file, question)
    else:
        for item in read_items(file, ""):
            yield read_item(file, item, question)


def is_mine(path: str, head: bytes) -> bool:
    """Darwin JSON 2.0, or lines that begin with an image's path from the dataset's root."""
    if path.lower().endswith(".csv"):
        return bool(_TAGGED_PATH.match(head))
    return path.endswith(".json") and (b"darwin_json" in head or (b'"item"' in head and b'"slots"' in head))


def _request(slug: str, tasks: list[Task]) -> dict[str, Any]:
    link = urlsplit(tasks[0].link)
    storage = link.netloc if link.scheme in ("s3", "gs") else "STORAGE_SLUG"
    items = [
        {"path": "/", "type": "image", "storage_key": _key(task), "name": posixpath.basename(task.file)}
        for task in tasks
    ]
    return {"dataset_slug": slug, "storage_slug": storage, "items": items}


def _key(task: Task) -> str:
    return task.file if task.link == task.file else unquote(urlsplit(task.link).path).lstrip("/")
