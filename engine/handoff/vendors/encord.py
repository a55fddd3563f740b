"""Encord: a list of images to register and an ontology out, the JSON export of label rows back.

Sent: upload.json registers images that have a URL ("Add private data"); Encord signs URLs itself by its cloud
integration, so a signature is left out: it would expire, and make each URL a new one to `skip_duplicate_urls`. Images
that are files are uploaded with their names as titles, and upload.json lists what was sent. ontology.json is an
ontology's structure, as `OntologyStructure.from_dict` of Encord's SDK takes it; instructions.txt is for the project.

Read: the answers of the question with the ontology's name for it, "class" or "classes", or of the only one there is.
Who edited a label last is its annotator.

Checked with SDK 0.1.211: upload.json by DataUploadItems, ontology.json by OntologyStructure, and that rows which
LabelRowV2 writes (`to_encord_dict`) are read. That what the web application exports is a list of such rows, or one, is
from the documentation.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from engine.handoff.formats.encord_ontology import ontology
from engine.handoff.formats.encord_rows import read_row
from engine.handoff.formats.json_stream import read_values
from engine.handoff.formats.task_files import json_file, rows_in_files

_FILE_IMAGES = 10_000
"""Images in one upload file. Encord names no limit; files of this size are still registered in minutes."""
_FIX = "export the labels from Encord as JSON"


def write_tasks(batch: Outgoing) -> Iterator[tuple[str, bytes]]:
    """upload.json, or upload-001.json and so on, and ontology.json."""
    for name, tasks in rows_in_files("upload.json", batch.tasks, _FILE_IMAGES):
        yield name, json_file({"images": list(map(_image, tasks)), "skip_duplicate_urls": True})
    yield "ontology.json", json_file(ontology(batch.question))


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """The images of a list of label rows, or of one."""
    for number, row in enumerate(read_values(file), 1):
        if not isinstance(row, dict) or not isinstance(row.get("data_units"), dict):
            raise InputError(f"{file.place}: label row {number} has no data_units; {_FIX}")
        yield from read_row(row, f"label row {number}", question)


def is_mine(path: str, head: bytes) -> bool:
    """Label rows in JSON."""
    return path.endswith(".json") and (b'"data_units"' in head or (b'"label_hash"' in head and b'"data_hash"' in head))


def _image(task: Task) -> dict[str, Any]:
    link, query = urlsplit(task.link), urlsplit(task.link).query
    url = link._replace(query="").geturl() if "Signature=" in query else task.link
    return {"objectUrl": url, "title": task.item_id, "clientMetadata": {"item_id": task.item_id}}
