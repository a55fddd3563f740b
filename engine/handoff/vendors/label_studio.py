"""Label Studio: tasks to import, the labeling configuration, and the JSON export. After the source of its 1.23.

Images that travel as files are served by Label Studio, with the vendor's folder as LOCAL_FILES_DOCUMENT_ROOT.
"""

from collections.abc import Iterator
from urllib.parse import quote

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from engine.handoff.formats.answer_values import duration, with_read
from engine.handoff.formats.cells import moment_or_none
from engine.handoff.formats.json_stream import Record, head_of, is_json, read_records, start_of
from engine.handoff.formats.label_studio_controls import CLASS, IMAGE, labeling_config, value_of
from engine.handoff.formats.task_files import json_list, require_classes, rows_in_files
from engine.tables.values import text_of

_MOST_TASKS = 50_000  # One request imports a file, and may have 250 MB.
_MARKS = (b'"was_cancelled"', b'"total_annotations"', b'"completed_by"', b'"annotation_id"')
_REDUCED = "a JSON_MIN or CSV export, which leaves out the cancelled annotations; export JSON"


def write_tasks(batch: Outgoing) -> Iterator[tuple[str, bytes]]:
    """labeling_config.xml, and tasks.json, or tasks-001.json and so on."""
    require_classes(batch, "label-studio")
    yield "labeling_config.xml", labeling_config(batch.question).encode()
    for name, tasks in rows_in_files("tasks.json", batch.tasks, _MOST_TASKS):
        yield name, json_list(_task(task, batch.question) for task in tasks)


def _task(task: Task, question: Question) -> Record:
    link = task.link if "://" in task.link else f"/data/local-files/?d={quote(task.link)}"
    row: Record = {"data": {"image": link, "item_id": task.item_id}}
    if task.prelabel and question.task in ("class", "classes"):
        value = {"choices": [task.prelabel]}
        result = {"from_name": CLASS, "to_name": IMAGE, "type": "choices", "value": value}
        row["predictions"] = [{"model_version": "prelabel", "result": [result]}]
    return row


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """The annotations of each task; None for a task without one. Drafts and predictions are no answers."""
    if _is_table(head_of(file)):
        raise InputError(f"{file.place}: {_REDUCED}")
    yield from read_records(file, _refusal, lambda where, task: _answers(where, task, question))


def _is_table(head: bytes) -> bool:
    start = start_of(head)
    return not start.startswith((b"[", b"{")) and b"annotation_id" in start.split(b"\n")[0]


def _refusal(task: Record) -> str:
    if "annotation_id" in task:
        return _REDUCED
    is_task = "annotations" in task and "data" in task
    return "" if is_task else "not a task with annotations; give the JSON export of the project"


def _answers(where: str, task: Record, question: Question) -> Iterator[Answer]:
    item = text_of(task["data"].get("item_id"), "item_id")
    if not item:
        yield Answer(where, "", None, fault="the task's data lack item_id; import the tasks as they were exported")
        return
    if not task["annotations"]:
        yield Answer(where, item, None)
    yield from (_answer(where, item, annotation, question) for annotation in task["annotations"])


def _answer(where: str, item: str, annotation: Record, question: Question) -> Answer:
    name = text_of(annotation.get("unique_id") or annotation["id"], "the annotation's id")
    person = annotation.get("completed_by")
    person = (person.get("id") or person.get("email")) if isinstance(person, dict) else person
    # One of an unknown person is that of a person of its own: without an annotator it would be the final answer.
    annotator = text_of(person, "completed_by") or name
    answered_at = moment_or_none(annotation.get("updated_at") or annotation.get("created_at"), "the time")
    seconds = duration(annotation.get("lead_time"))
    answer = Answer(where, item, None, annotator, answer_id=name, answered_at=answered_at, seconds=seconds)
    if annotation.get("was_cancelled"):
        return answer._replace(skipped=True, reason="cancelled")
    return with_read(answer, lambda: value_of(annotation["result"], question), f"annotation {name}", "Label Studio")


def is_mine(path: str, head: bytes) -> bool:
    """Whether it looks like an export: JSON, JSON_MIN or CSV."""
    is_export = is_json(path, head) and any(mark in head for mark in _MARKS)
    return is_export or (_is_table(head) and b"lead_time" in head)
