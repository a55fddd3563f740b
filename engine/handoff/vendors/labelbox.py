"""Labelbox: data rows, batch and ontology for its SDK, and the export of version 2. After the SDK of 2024 and the docs.

Not run here: there is no server to run. A `row_data` that is no URL is a file of the vendor's folder: the SDK uploads
it.
"""

from collections.abc import Iterator, Sequence
from uuid import NAMESPACE_OID, uuid5

from engine.errors import ConfigError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from engine.handoff.formats.answer_values import duration, with_read
from engine.handoff.formats.cells import moment_or_none
from engine.handoff.formats.json_stream import Record, is_json, read_records
from engine.handoff.formats.labelbox_ontology import CLASS, ontology, value_of
from engine.handoff.formats.task_files import json_file, json_line, json_list, require_classes, rows_in_files
from engine.tables.values import text_of

_MOST_ROWS = 100_000  # Of a batch.


def write_tasks(batch: Outgoing) -> Iterator[tuple[str, bytes]]:
    """ontology.json, data_rows.json with batch.json (data_rows-001.json and so on), and prelabels.ndjson if any."""
    require_classes(batch, "labelbox")
    if bad := next((task.link for task in batch.tasks if task.link.startswith("s3://")), ""):
        raise ConfigError(
            f"{bad}: labelbox takes no s3:// links; set handoff.link_days, which gives signed https links"
        )
    yield "ontology.json", json_file(ontology(batch.question))
    for name, tasks in rows_in_files("data_rows.json", batch.tasks, _MOST_ROWS):
        rows = ({"row_data": task.link, "global_key": task.item_id, "media_type": "IMAGE"} for task in tasks)
        yield name, json_list(rows)
        part = name.removeprefix("data_rows").removesuffix(".json")
        yield f"batch{part}.json", json_file(_batch(f"{batch.name}{part}", batch.annotators))
    guessed = [task for task in batch.tasks if task.prelabel and batch.question.task in ("class", "classes")]
    if guessed:
        yield "prelabels.ndjson", b"".join(map(json_line, _prelabels(batch, guessed)))


def _batch(name: str, annotators: int) -> Record:
    consensus = {"consensus_settings": {"number_of_labels": annotators, "coverage_percentage": 1.0}}
    return {"name": name, "priority": 5, **(consensus if annotators > 1 else {})}


def _prelabels(batch: Outgoing, tasks: Sequence[Task]) -> Iterator[Record]:
    for task in tasks:
        answer = {"name": task.prelabel}
        same_each_time = str(uuid5(NAMESPACE_OID, f"{batch.name}/{task.item_id}"))
        key = {"uuid": same_each_time, "dataRow": {"globalKey": task.item_id}, "name": CLASS}
        yield key | {"answer": answer if batch.question.task == "class" else [answer]}


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """The labels of each data row in all of its projects; None for a row without one."""
    return read_records(file, _refusal, lambda where, row: _answers(where, row, question))


def _refusal(row: Record) -> str:
    return "" if "data_row" in row else "not a row of a Labelbox export of version 2 (no data_row); export it as NDJSON"


def _answers(where: str, row: Record, question: Question) -> Iterator[Answer]:
    found = row["data_row"]
    item = text_of(found.get("global_key") or found.get("external_id"), "global_key") or found["row_data"].split("?")[0]
    labels = [label for project in (row.get("projects") or {}).values() for label in project.get("labels") or []]
    if not labels:
        yield Answer(where, item, None)
    yield from (_answer(where, item, label, question) for label in labels)


def _answer(where: str, item: str, label: Record, question: Question) -> Answer:
    name, details = text_of(label["id"], "the label's id"), label.get("label_details") or {}
    work = label.get("performance_details") or {}
    # One of an unknown person is that of a person of its own: without an annotator it would be the final answer.
    annotator = text_of(details.get("created_by"), "created_by") or name
    times = (details.get(key) for key in ("content_last_updated_at", "updated_at", "created_at"))
    answered_at, seconds = moment_or_none(next(filter(None, times), None), "the time"), work.get("seconds_to_create")
    answer = Answer(where, item, None, annotator, name, answered_at, duration(seconds))
    if work.get("skipped"):
        return answer._replace(skipped=True, reason="skipped")
    return with_read(answer, lambda: value_of(label["annotations"], question), f"label {name}", "Labelbox")


def is_mine(path: str, head: bytes) -> bool:
    """Whether it looks like an export of version 2."""
    return is_json(path, head) and b'"data_row"' in head
