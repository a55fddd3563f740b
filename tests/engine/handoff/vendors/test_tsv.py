"""Toloka's columns: tasks go out in files that it takes, and assignments come back with who answered what and when."""

import csv
import io
import itertools
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.handoff.exchange import Answer, Question
from engine.handoff.vendors import tsv
from engine.handoff.vendors.tsv import is_mine, read_answers, write_tasks
from engine.tables.harmless import harmless
from tests.engine.handoff.vendors.table_batches import IDS, ITEM_IDS, QUESTIONS, VESSELS, outgoing, said
from tests.vendor_files import answer_file, endless_file

LINK = "https://b.example.org/images/a.png?X-Amz-Signature=0/1.2"
EXAMPLE = (
    "INPUT:image\tINPUT:item_id\tOUTPUT:vessel\tGOLDEN:vessel\tHINT:text\tASSIGNMENT:link\tASSIGNMENT:task_id\t"
    "ASSIGNMENT:assignment_id\tASSIGNMENT:task_suite_id\tASSIGNMENT:worker_id\tASSIGNMENT:status\tASSIGNMENT:started\t"
    "ASSIGNMENT:submitted\tASSIGNMENT:accepted\tASSIGNMENT:reward\n"
    f"{LINK}\ta\tkettle\t\t\thttps://platform.example/a/1\ttsk1\tasg1\tts1\twrk1\tAPPROVED\t2026-11-20T10:00:01\t"
    "2026-11-20T10:00:05\t2026-11-20T10:00:06\t0.04\n"
)


def read(content: str | bytes, question: Question = VESSELS) -> list[Answer]:
    return list(read_answers(answer_file(content, "assignments.tsv"), question))


def tabs(rows: Iterable[dict[str, Any]]) -> str:
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def test_the_files_of_a_batch() -> None:
    files = dict(write_tasks(outgoing(prefix="https://b/")))
    assert list(files) == ["tasks.tsv", "project.json"]
    assert files["tasks.tsv"].decode().splitlines()[:2] == [
        "INPUT:image\tINPUT:item_id\tTASK:overlap",
        f"https://b/images/{IDS[0]}.png\t{IDS[0]}\t3",
    ]
    project = json.loads(files["project.json"])
    assert project["public_instructions"] == "What is it?"
    assert project["task_spec"]["output_spec"]["label"]["allowed_values"] == ["kettle", "teapot", "jug"]
    assert project["task_spec"]["input_spec"]["image"]["type"] == "url"
    assert files == dict(write_tasks(outgoing(prefix="https://b/")))


def test_a_large_batch_goes_into_several_files_none_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dict(write_tasks(outgoing(prelabel="=x")))["tasks.tsv"]
    assert whole.splitlines()[1].split(b"\t")[2] == b"'=x"
    header, *lines = whole.splitlines(keepends=True)
    monkeypatch.setattr(tsv, "_MOST_BYTES", len(header + lines[0] + lines[1]))
    files = dict(write_tasks(outgoing(prelabel="=x")))
    assert list(files) == ["tasks-001.tsv", "tasks-002.tsv", "project.json"]
    assert (files["tasks-001.tsv"], files["tasks-002.tsv"]) == (header + lines[0] + lines[1], header + lines[2])


def test_an_assignment_of_toloka() -> None:
    submitted = datetime(2026, 11, 20, 10, 0, 5, tzinfo=UTC)
    assert read(EXAMPLE) == [Answer("line 2", "a", "kettle", "wrk1", "asg1/tsk1", submitted, 4.0)]


@given(ITEM_IDS, QUESTIONS, st.data())
def test_what_a_vendor_fills_in_comes_back(ids: list[str], question: Question, data: st.DataObject) -> None:
    written = dict(write_tasks(outgoing(question, ids)))["tasks.tsv"].decode()
    rows, meant = [], []
    for task in csv.DictReader(io.StringIO(written), delimiter="\t"):
        inputs = {name: cell for name, cell in task.items() if name.startswith("INPUT:")}
        for worker in data.draw(st.lists(st.sampled_from(["w1", "w2", "w3"]), min_size=1, unique=True)):
            label: Any = data.draw(st.sampled_from(question.classes))
            if question.task == "classes":
                label = sorted(data.draw(st.sets(st.sampled_from(question.classes), min_size=1)))
            meant.append((inputs["INPUT:item_id"], label, worker))
            text = json.dumps(label) if question.task == "classes" else label
            rows.append({**inputs, "OUTPUT:label": harmless(text), "ASSIGNMENT:worker_id": worker})
    answers = read(tabs(rows), question)
    assert [(answer.item, answer.value, answer.annotator) for answer in answers] == meant
    assert not any(answer.fault for answer in answers)


@pytest.mark.parametrize(
    ("status", "value", "skipped", "reason"),
    [
        ("APPROVED", "jug", False, ""), ("SUBMITTED", "jug", False, ""), ("", "jug", False, ""),
        ("ACTIVE", None, False, ""), ("EXPIRED", None, False, ""),
        ("SKIPPED", None, True, "skipped"), ("REJECTED", None, True, "rejected"),
    ],
)  # fmt: skip
def test_the_states_of_an_assignment(status: str, value: str | None, skipped: bool, reason: str) -> None:
    row = {"INPUT:item_id": "a", "OUTPUT:label": "jug", "ASSIGNMENT:status": status}
    (answer,) = read(tabs([row]))
    assert (answer.value, answer.skipped, answer.reason, answer.fault) == (value, skipped, reason, "")


def test_the_answers_field_and_the_image_that_has_no_id() -> None:
    several = {"INPUT:image": LINK, "OUTPUT:sure": "yes", "OUTPUT:label": "jug"}
    assert said(read(tabs([several]))) == [("https://b.example.org/images/a.png", "jug")]
    with pytest.raises(InputError, match=r"/in/assignments.tsv: 2 columns OUTPUT:, and none is OUTPUT:label; "):
        read(tabs([{"INPUT:item_id": "a", "OUTPUT:sure": "yes", "OUTPUT:vessel": "jug"}]))
    with pytest.raises(InputError, match=r"0 columns OUTPUT:"):
        read(tabs([{"INPUT:item_id": "a", "TASK:overlap": "3"}]))


def test_several_classes_with_commas_as_toloka_writes_an_array() -> None:
    question = Question("classes", ["a", "b, c", "d"])
    cells = {"d,a": ["a", "d"], r"d,b\, c": ["b, c", "d"], "b, c": ["b, c"], "d|a": ["a", "d"], "": None}
    for cell, value in cells.items():
        assert said(read(tabs([{"INPUT:item_id": "a", "OUTPUT:label": cell}]), question)) == [("a", value)]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"INPUT:item_id": "", "OUTPUT:label": "jug"}, "no INPUT:item_id and no INPUT:image; take the row out"),
        ({"INPUT:item_id": "a", "OUTPUT:label": "jug", "ASSIGNMENT:status": "LOST"}, "ASSIGNMENT:status is 'LOST'; "),
        ({"INPUT:item_id": "a", "OUTPUT:label": "j\nug"}, "label is 'j\\nug', with a line break"),
        ({"INPUT:item_id": "a", "OUTPUT:label": "jug", "ASSIGNMENT:started": "soon"}, "started 'soon' is not an ISO"),
    ],
)
def test_a_row_that_cannot_be_taken_is_a_fault(row: dict[str, str], fault: str) -> None:
    (answer,) = read(tabs([row]))
    assert fault in answer.fault


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (EXAMPLE[:-100], "line 2: truncated: the last line ends after 6 of 15 values"),
        (EXAMPLE[: EXAMPLE.index("\n") + 1], "no rows; give the file that the vendor filled in"),
        ("", "the file is empty"),
        ("item_id,label\na,jug\n", "no column 'INPUT:item_id' among 'item_id,label'"),
        ('INPUT:item_id\tOUTPUT:x\na\t"jug\n', "line 2: not valid CSV"),
        (EXAMPLE.encode("utf-16"), "UTF-16; save it in UTF-8"),
        (EXAMPLE.replace("kettle", "cr\xe8me").encode("latin-1"), "not valid UTF-8: line 2"),
    ],
)
def test_a_file_that_is_none_of_assignments_is_refused(content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(content)


def test_empty_lines_are_between_suites_and_an_endless_file_is_read_as_it_comes() -> None:
    head, row = EXAMPLE.splitlines(keepends=True)
    assert said(read(head + "\n" + row + "\n" + row)) == [("a", "kettle")] * 2
    file = endless_file("a.tsv", head, row)
    assert said(itertools.islice(read_answers(file, VESSELS), 3)) == [("a", "kettle")] * 3


@pytest.mark.parametrize(
    ("path", "head", "mine"),
    [
        ("x/a.tsv", EXAMPLE, True), ("a.csv", EXAMPLE, False), ("a.tsv", "item_id\tlabel\n", False),
        ("tasks.tsv", "INPUT:image\tINPUT:item_id\tTASK:overlap\n", False),
    ],
)  # fmt: skip
def test_assignments_are_known_by_their_columns(path: str, head: str, mine: bool) -> None:
    assert is_mine(path, head.encode()) == mine
