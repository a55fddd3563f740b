"""The neutral handoff, for people and programs without a module of their own: CSV, JSON lines and JSON Schemas.

Back come CSV, JSON lines or Parquet with a row for each answer: see `AnswerRecord`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from engine.handoff.formats.cells import columns_of, form_of, rows_of, stem_of
from engine.handoff.formats.cut_off import whole
from engine.handoff.formats.neutral_answers import answer_of
from engine.handoff.formats.records import schemas
from engine.handoff.formats.task_files import csv_lines, json_file, json_line
from engine.tables.harmless import restored
from engine.tables.row_stream import Row


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
    rows = rows_of(file, form, [("item_id", "file"), label])
    yield from whole(((row, _answer(f"line {line}", row, form, question)) for line, row in rows), "label", question)


def _answer(where: str, row: Row, form: str, question: Question) -> Answer:
    if form in ("csv", "tsv") and row["label"]:
        row["label"] = restored(row["label"])
    return answer_of(where, row, question)


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
