"""CVAT: what its server takes to make a task, and "CVAT for images 1.1" back.

Sent: task.json and data.json are the bodies of POST /api/tasks and of POST /api/tasks/ID/data. Images that are files
are taken from the server's share, or, with `cloud_storage_id` added to data.json, from a bucket that holds this folder.
Keys of s3:// and gs:// links are relative to the bucket, and manifest.jsonl belongs into its root. https:// links are
fetched by the server. labels.json is for the label constructor ("Raw"), instructions.txt for the task's guide.

Read: the XML of a task or project, into which CVAT merged what several annotators said, so that its answer is final;
or that of a job, as of a consensus replica, whose answers are its assignee's, under the job's number. No file says
whether anyone labelled an image: without tags, or shapes, it counts as not labelled. Nor does that of a job say whether
it is a replica, or the job that replicas are merged into (2.80).
"""

import posixpath
import re
from collections.abc import Iterator
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from engine.errors import ConfigError, InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from engine.handoff.formats.cvat_xml import read_images
from engine.handoff.formats.task_files import json_file, json_line

_TYPES = {"class": "tag", "classes": "tag", "boxes": "rectangle", "mask": "mask"}
_MOST_NAME, _MOST_LABEL, _MOST_ANNOTATORS, _MOST_JOBS = 256, 64, 11, 5000
"""The server's limits: characters of a task's and a label's name, replicas, and jobs in a task (2.80)."""
_JOB_IMAGES = 100
_QUALITY = 95
"""JPEG quality in percent of what annotators see: 70, the default, hides fine structure; 100 only costs traffic."""
_FIX = 'export "CVAT for images 1.1"'


def write_tasks(batch: Outgoing) -> Iterator[tuple[str, bytes]]:
    """manifest.jsonl, task.json, data.json and labels.json. Raises ConfigError for the limits."""
    question, replicas = batch.question, batch.annotators if batch.annotators > 1 else 0
    if replicas > _MOST_ANNOTATORS:
        raise ConfigError(f"{replicas} annotators: CVAT takes at most {_MOST_ANNOTATORS}; ask fewer")
    if long := [name for name in question.classes if len(name) > _MOST_LABEL]:
        raise ConfigError(f"class {long[0]!r} is longer than the {_MOST_LABEL} characters of CVAT; shorten its name")
    if len(batch.name) > _MOST_NAME:
        raise ConfigError(f"batch {batch.name!r} is longer than the {_MOST_NAME} characters of CVAT; shorten its name")
    labels = [{"name": name, "type": _TYPES[question.task], "attributes": []} for name in question.classes]
    # The server counts a job for each replica beside the job that they are merged into.
    images = max(_JOB_IMAGES, ceil(len(batch.tasks) * (replicas + 1) / _MOST_JOBS))
    task: dict[str, Any] = {"name": batch.name, "labels": labels, "segment_size": images}
    entries = [{"version": "1.1"}, {"type": "images"}, *map(_manifest_entry, batch.tasks)]
    yield "manifest.jsonl", b"".join(map(json_line, entries))
    yield "task.json", json_file(task | ({"consensus_replicas": replicas} if replicas else {}))
    yield "data.json", json_file(_sources(batch.tasks) | _HOW_SHOWN)
    yield "labels.json", json_file(labels)


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """The images of an XML file. Raises InputError for another format of CVAT's, such as ImageNet, whose classes are
    numbers that only another file explains."""
    if file.path.endswith(".txt"):
        raise InputError(f"{file.place}: names classes by numbers, as ImageNet 1.0 does; {_FIX}")
    yield from read_images(file, question, _FIX)


def is_mine(path: str, head: bytes) -> bool:
    """An XML file of annotations, or the lists of ImageNet 1.0, which are refused with the fix."""
    if path.endswith(".txt"):
        return bool(re.match(rb"\S+( \d+)+\r?\n", head))
    return b"<annotations>" in head and any(tag in head for tag in (b"<version>", b"<meta>", b"<image "))


_HOW_SHOWN = {"image_quality": _QUALITY, "use_cache": True, "sorting_method": "predefined"}


def _key(task: Task) -> str:
    return urlsplit(task.link).path.lstrip("/") if task.link.startswith(("s3://", "gs://")) else task.file


def _manifest_entry(task: Task) -> dict[str, Any]:
    name, extension = posixpath.splitext(_key(task))
    return {"name": name, "extension": extension, "width": task.width, "height": task.height}


def _sources(tasks: list[Task]) -> dict[str, list[str]]:
    if any(task.link.startswith(("https://", "http://")) for task in tasks):
        return {"remote_files": [task.link for task in tasks]}
    return {"server_files": ["manifest.jsonl", *map(_key, tasks)]}
