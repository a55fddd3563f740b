"""The neutral handoff, for people and programs without a module of their own: CSV, JSON lines and JSON Schemas.

Back come CSV, JSON lines or Parquet with a row for each answer: see `AnswerRecord`.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from engine.handoff.formats.cells import (
    columns_of,
    flag_of,
    form_of,
    moment_or_none,
    rows_of,
    seconds_of,
    stem_of,
    value_of,
)
from engine.handoff.formats.records import schemas
from engine.handoff.formats.task_files import csv_lines, json_file, json_line
from engine.tables.harmless import restored
from engine.tables.row_stream import Row
from engine.tables.values import is_blank, text_of

_ITEM_ID = re.compile("[0-9a-f]{32}")
_SKIPPED = re.compile("skip|cancel|reject|discard|unlabell?able|cannot|invalid|corrupt|broken|ignore", re.IGNORECASE)
"""What a status says of an image that has no label and gets none."""


def write_tasks(batch: Outgoing) -> Iterable[tuple[str, bytes]]:
    """tasks.csv and tasks.jsonl with the same rows, question.json, and the schemas of tasks and answers."""
    has_links = any(task.link != task.file for task in batch.tasks)
    has_prelabels = any(task.prelabel for task in batch.tasks)
    rows = [_row(task, has_links, has_prelabels) for task in batch.tasks]
    names = list(_row(Task("", "", "", 0, 0, "", "", 0, 0), has_links, has_prelabels))
    yield "tasks.csv", b"".join(csv_lines([names, *(row.values() for row in rows)]))
    yield "tasks.jsonl", b"".join(map(json_line, rows))
    task, classes, instructions, _ = batch.question
    question = {"task": task, "classes": classes, "instructions": instructions, "annotators": batch.annotators}
    yield "question.json", json_file(question)
    yield from schemas().items()


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """CSV, TSV, JSON lines or Parquet. Raises InputError when the file is not that, or a column is missing."""
    form = form_of(file.path)
    if form is None:
        raise InputError(f"{file.place}: not a table of answers; give .csv, .tsv, .jsonl or .parquet")
    # In JSON lines a row has the columns that it fills.
    label = ("label", "skipped") if form == "jsonl" else ("label",)
    for line, row in rows_of(file, form, [("item_id", "file"), label]):
        if form in ("csv", "tsv") and row["label"]:
            row["label"] = restored(row["label"])
        yield _answer(f"line {line}", row, question)


def is_mine(path: str, head: bytes) -> bool:
    """Whether it is a table with item_id or file, and label. The columns of Parquet are not in its first bytes."""
    if form_of(path) == "parquet":
        return head.startswith(b"PAR1") and stem_of(path) != "metadata"
    columns = columns_of(path, head)
    others = columns & {"file_name", "source-ref", "annotation_id", "data_row"}
    return bool(columns & {"item_id", "file"} and columns & {"label", "skipped"}) and not others


def _row(task: Task, has_link: bool, has_prelabel: bool) -> dict[str, Any]:
    link = {"link": task.link if task.link != task.file else ""} if has_link else {}
    size = {"priority": task.priority, "bytes": task.size_bytes, "sha256": task.sha256}
    return {"item_id": task.item_id, "file": task.file, **link, **size} | (
        {"prelabel": task.prelabel} if has_prelabel else {}
    )


def _answer(where: str, row: Row, question: Question) -> Answer:
    item = ""
    try:
        item = _item(row)
        value, raw = value_of(row.get("label"), question)
        texts = {name: text_of(row.get(name), name) for name in ("annotator", "answer_id", "reason")}
        status = text_of(row.get("status"), "status")
        time = "answered_at" if is_blank(row.get("labelled_at")) else "labelled_at"
        moment = moment_or_none(row.get(time), time)
        seconds, skipped = seconds_of(row.get("seconds"), "seconds"), flag_of(row.get("skipped"), "skipped")
    except InputError as error:
        return Answer(where, item, None, fault=str(error))
    if value is None and _SKIPPED.search(status):
        skipped, texts["reason"] = True, texts["reason"] or status
    if skipped and value is not None:
        return Answer(where, item, None, fault=f"skipped, but label is {row['label']!r}; leave one of them empty")
    return Answer(where, item, value, answered_at=moment, seconds=seconds, skipped=skipped, raw=raw, **texts)


def _item(row: Row) -> str:
    """What names the image. Raises InputError if nothing does, or two columns name two images."""
    item, path = text_of(row.get("item_id"), "item_id"), text_of(row.get("file"), "file")
    if not item and not path:
        raise InputError("no 'item_id' and no 'file'; every row needs one of them")
    # Columns that were sorted without each other.
    if item and _ITEM_ID.fullmatch(stem_of(path)) and stem_of(path) != stem_of(item):
        raise InputError(f"item_id {item!r} and file {path!r} are two images; correct one of them")
    return item or path
