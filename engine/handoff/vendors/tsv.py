"""Toloka's columns, in files of tab-separated values: INPUT:, OUTPUT:, ASSIGNMENT:.

Checked against the requester's guide and public assignment files, not against the service. The seconds of an answer are
those of its task suite: Toloka has no others. Shapes are JSON in pixels as in the neutral handoff.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question
from engine.handoff.formats.assignments import answer_of
from engine.handoff.formats.cells import columns_of, rows_of
from engine.handoff.formats.cut_off import whole
from engine.handoff.formats.task_files import csv_lines, in_files, json_file

_MOST_BYTES = 100_000_000
_MOST_LINES = 10_000_000
_OUTPUT = "OUTPUT:label"
_ITEM = (("INPUT:item_id", "INPUT:image"),)


def write_tasks(batch: Outgoing) -> Iterable[tuple[str, bytes]]:
    """tasks.tsv, in several files of at most 100 MB, and project.json: the project's fields and instructions."""
    has_prelabels = any(task.prelabel for task in batch.tasks)
    names = ["INPUT:image", "INPUT:item_id", *(["INPUT:prelabel"] if has_prelabels else []), "TASK:overlap"]
    rows = (
        [task.link, task.item_id, *([task.prelabel] if has_prelabels else []), batch.annotators] for task in batch.tasks
    )
    (header,) = csv_lines([names], "\t")
    lines = csv_lines(rows, "\t")
    yield from in_files("tasks.tsv", lines, most_bytes=_MOST_BYTES, most_lines=_MOST_LINES, header=header)
    yield "project.json", json_file(_project(batch, has_prelabels))


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """The assignments of a pool. Several OUTPUT: fields are read if one is OUTPUT:label.

    Not submitted and expired assignments have no answer yet; skipped and rejected ones never have one. A row without
    a task, which a control task of the vendor's own may be, is a fault.
    """
    rows = rows_of(file, "tsv", _ITEM)
    # There is a first row, or there are none to be read.
    first = next(rows)
    outputs = [name for name in first[1] if name.startswith("OUTPUT:")]
    output = _OUTPUT if _OUTPUT in outputs or len(outputs) != 1 else outputs[0]
    if output not in outputs:
        why = f"{len(outputs)} columns OUTPUT:, and none is {_OUTPUT}"
        raise InputError(f"{file.place}: {why}; download the assignments, and rename the answer's to {_OUTPUT}")
    answers = ((row, answer_of(f"line {line}", row, output, question)) for line, row in chain([first], rows))
    yield from whole(answers, output, question)


def is_mine(path: str, head: bytes) -> bool:
    """Whether it is a .tsv file with an INPUT: and an OUTPUT: column."""
    prefixes = {name.partition(":")[0] for name in columns_of(path, head)}
    return path.lower().endswith(".tsv") and {"INPUT", "OUTPUT"} <= prefixes


def _project(batch: Outgoing, has_prelabels: bool) -> dict[str, object]:
    task, classes, instructions, _ = batch.question
    kind = {"class": "string", "classes": "array_string"}.get(task, "json")
    is_file = any(work.link == work.file for work in batch.tasks)
    inputs = {"image": {"type": "string" if is_file else "url", "required": True}, "item_id": {"type": "string"}}
    inputs |= {"prelabel": {"type": "string", "required": False}} if has_prelabels else {}
    label = {"type": kind, "required": True} | ({"allowed_values": classes} if kind != "json" and classes else {})
    spec = {"input_spec": inputs, "output_spec": {"label": label}}
    return {"public_name": batch.name, "public_instructions": instructions, "task_spec": spec}
