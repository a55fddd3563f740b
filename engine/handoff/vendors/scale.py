"""Scale AI: requests of its API, and the tasks or callbacks that come back. After its SDK of 2026 and the docs.

Not run here: there is no server to run. Send each line of tasks.jsonl to /v1/task/textcollection, for boxes to
imageannotation, for masks to segmentannotation. The project of batch.json is the user's. A link that is no URL is a
file of the vendor's folder, to be uploaded first.
"""

from collections.abc import Iterator

from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from engine.handoff.formats.cells import moment_or_none
from engine.handoff.formats.json_stream import Record, is_json, read_records
from engine.handoff.formats.scale_responses import FIELD, choices, shapes
from engine.handoff.formats.task_files import compact, in_files, json_file, json_line, require_classes
from engine.tables.values import text_of

_MOST_BYTES = 100_000_000  # Of a file: what fits into memory, and through most tools.
_SKIPPED = {"canceled", "error"}
_ASKS = {"class": "Which class does the image show?", "classes": "Which of the classes does the image show?"}


def write_tasks(batch: Outgoing) -> Iterator[tuple[str, bytes]]:
    """batch.json, and tasks.jsonl, or tasks-001.jsonl and so on."""
    require_classes(batch, "scale")
    yield "batch.json", json_file({"project": "", "name": batch.name})
    lines = (json_line(_request(task, batch)) for task in batch.tasks)
    yield from in_files("tasks.jsonl", lines, most_bytes=_MOST_BYTES, most_lines=len(batch.tasks))


def _request(task: Task, batch: Outgoing) -> Record:
    row: Record = {"batch": batch.name, "unique_id": task.item_id, "metadata": {"item_id": task.item_id}}
    row |= {"instruction": batch.question.instructions} if batch.question.instructions else {}
    row |= {"responses_required": batch.annotators} if batch.annotators > 1 else {}
    classes = batch.question.classes
    if batch.question.task == "boxes":
        geometries = {"box": {"objects_to_annotate": classes}, "polygon": {"objects_to_annotate": classes}}
        return row | {"attachment_type": "image", "attachment": task.link, "geometries": geometries}
    if batch.question.task == "mask":
        return row | {"attachment_type": "image", "attachment": task.link, "labels": classes}
    is_one = batch.question.task == "class"
    field = {"type": "category", "field_id": FIELD, "title": _ASKS[batch.question.task], "required": is_one}
    field |= {"choices": [{"label": name, "value": name} for name in classes]}
    field |= {"min_choices": int(is_one), "max_choices": 1 if is_one else len(classes)}
    return row | {"attachments": [{"type": "image", "content": task.link}], "fields": [field]}


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """The responses of each task, also in pages as the API lists them; None for one that is pending."""
    return read_records(file, _refusal, lambda where, record: _answers(where, record, question))


def _refusal(record: Record) -> str:
    is_task = "task_id" in record and ("status" in record or "task" in record)
    return "" if is_task else "not a task of Scale with task_id and status; give the tasks as the API returns them"


def _answers(where: str, record: Record, question: Question) -> Iterator[Answer]:
    task = record.get("task") or record
    name, status = text_of(record["task_id"], "task_id"), task["status"]
    item = text_of((task.get("metadata") or {}).get("item_id") or task.get("unique_id"), "item_id")
    answer = Answer(where, item, None, answer_id=name, answered_at=moment_or_none(task.get("completed_at"), "the time"))
    if not item:
        yield answer._replace(fault=f"task {name} has no unique_id and no metadata.item_id; export it again")
    elif status in _SKIPPED or task.get("customer_review_status") == "rejected":
        yield answer._replace(skipped=True, reason=status if status in _SKIPPED else "rejected")
    elif status == "completed":
        yield from _responses(answer, record.get("response") or task["response"], question)
    else:
        fault = "" if status == "pending" else f"task {name} has the status {status!r}; export it when it is completed"
        yield answer._replace(fault=fault)


def _responses(answer: Answer, response: Record, question: Question) -> Iterator[Answer]:
    if question.task not in ("class", "classes"):
        yield answer._replace(value=shapes(response), raw=compact(response["annotations"]))
        return
    for number, classes in enumerate(choices(response["annotations"])):
        # Who responded is not said: each is a person of its own, and keeps the name when later responses follow.
        name = f"{answer.answer_id}/{number}"
        vote = answer._replace(annotator=name, answer_id=name)
        is_fit = question.task == "classes" or len(classes) == 1
        fault = "" if is_fit else f"response {name} has {len(classes)} classes, not one; correct it at Scale"
        yield vote._replace(value=None if fault else classes if question.task == "classes" else classes[0], fault=fault)


def is_mine(path: str, head: bytes) -> bool:
    """Whether it looks like tasks or callbacks."""
    return is_json(path, head) and b'"task_id"' in head and b'"status"' in head
