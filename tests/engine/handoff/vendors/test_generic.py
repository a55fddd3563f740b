"""The neutral handoff: what any program can write is read as it was meant."""

import csv
import io
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question
from engine.handoff.formats.records import schemas
from engine.handoff.vendors.generic import is_mine, read_answers, write_tasks
from engine.tables.harmless import harmless, restored
from tests.engine.handoff.vendors.table_batches import IDS, ITEM_IDS, QUESTIONS, VESSELS, outgoing, said
from tests.vendor_files import answer_file, endless_file

DOCS = Path(__file__).parents[4] / "docs/schemas"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def read(content: bytes | str, path: str, question: Question = VESSELS) -> list[Answer]:
    return list(read_answers(answer_file(content, path), question))


def as_file(rows: list[dict[str, Any]], form: str) -> bytes:
    """The rows as another program writes them."""
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if form == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter={"csv": ",", "tsv": "\t"}[form])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def test_the_files_of_a_batch() -> None:
    files = dict(write_tasks(outgoing()))
    assert list(files) == ["tasks.csv", "tasks.jsonl", "question.json", "tasks.schema.json", "answers.schema.json"]
    lines = files["tasks.csv"].decode().splitlines()
    assert lines[:2] == ["item_id,file,priority,bytes,sha256", f"{IDS[0]},images/{IDS[0]}.png,0,100,{'0' * 64}"]
    assert json.loads(files["question.json"]) == {
        "task": "class", "classes": ["kettle", "teapot", "jug"], "instructions": "What is it?", "annotators": 3,
    }  # fmt: skip
    assert files == dict(write_tasks(outgoing()))


@pytest.mark.parametrize("batch", [outgoing(), outgoing(prefix="s3://b/", prelabel="=1"), outgoing(ids=[])])
def test_both_lists_are_the_same_fit_the_schema_and_run_nowhere(batch: Outgoing) -> None:
    files = dict(write_tasks(batch))
    rows = [json.loads(line) for line in files["tasks.jsonl"].splitlines()]
    cells = list(csv.DictReader(io.StringIO(files["tasks.csv"].decode())))
    assert [{name: restored(cell) for name, cell in row.items()} for row in cells] == [
        {name: str(value) for name, value in row.items()} for row in rows
    ]
    for row in rows:
        jsonschema.validate(row, json.loads(files["tasks.schema.json"]))
        assert row.get("link", "") == f"s3://b/{row['file']}" * ("link" in row)
    assert not any(cell.startswith("=") for row in cells for cell in row.values())


@pytest.mark.parametrize("name", list(schemas()))
def test_the_published_schemas_are_those_of_the_code(name: str) -> None:
    assert (DOCS / name).read_bytes() == schemas()[name], f"write schemas()[{name!r}] to docs/schemas/{name}"


def test_the_json_of_a_list_is_one_also_where_a_class_has_this_name() -> None:
    question = Question("classes", ["[]", "[a", "x|y"], "")
    rows = [{"item_id": "0" * 32, "label": label} for label in ("[]", '["[]"]', "[a", "x|y")]
    assert [answer.value for answer in read(as_file(rows, "csv"), "a.csv", question)] == [[], ["[]"], ["[a"], ["x|y"]]


@given(ITEM_IDS, QUESTIONS, st.sampled_from(["csv", "tsv", "jsonl", "parquet"]), st.data())
def test_what_a_vendor_fills_in_comes_back(ids: list[str], question: Question, form: str, data: st.DataObject) -> None:
    tasks = csv.DictReader(io.StringIO(dict(write_tasks(outgoing(question, ids)))["tasks.csv"].decode()))
    rows, meant = [], []
    for task in tasks:
        for annotator in data.draw(st.lists(st.sampled_from(["ann", "=bob", 'c"d']), min_size=1, unique=True)):
            label: Any = data.draw(st.sampled_from(question.classes))
            if question.task == "classes":
                label = sorted(data.draw(st.sets(st.sampled_from(question.classes))))
            meant.append((task["item_id"], label, annotator))
            label = json.dumps(label) if question.task == "classes" and form in ("csv", "tsv") else label
            cell = harmless(label) if form in ("csv", "tsv") else label
            rows.append({"item_id": task["item_id"], "label": cell, "annotator": annotator, "more": "x"})
    answers = read(as_file(rows, form), f"a.{form}", question)
    assert [(answer.item, answer.value, answer.annotator) for answer in answers] == meant
    assert not any(answer.fault or answer.skipped for answer in answers)


def test_every_column_is_read_and_the_line_is_named() -> None:
    row = {"item_id": "a", "file": "images/a.png", "label": "jug", "annotator": 7, "answer_id": "x1", "seconds": "4.5"}
    row |= {"labelled_at": "2026-11-20T12:00:00Z", "skipped": "", "reason": ""}
    assert read(as_file([row], "csv"), "a.csv") == [Answer("line 2", "a", "jug", "7", "x1", NOON, 4.5)]
    row = {"file": "x/b.c.jpg", "label": None, "answered_at": 1795176000, "skipped": True, "reason": "dark"}
    expected = Answer("line 1", "x/b.c.jpg", None, answered_at=NOON, skipped=True, reason="dark")
    assert read(as_file([row], "jsonl"), "a.jsonl") == read(as_file([row], "parquet"), "a.parquet") == [expected]
    (blank,) = read("item_id,label,skipped\na,,false\n", "a.csv")
    assert (blank.value, blank.skipped, blank.answered_at, blank.fault) == (None, False, None, "")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"item_id": "", "label": "jug"}, "no 'item_id' and no 'file'; every row needs one of them"),
        ({"item_id": "a", "label": ["jug"]}, "label is several values, ['jug']; "),
        ({"item_id": "a", "label": "jug", "skipped": True}, "skipped, but label is 'jug'; leave one of them empty"),
        ({"item_id": "a", "label": "jug", "labelled_at": "soon"}, "labelled_at 'soon' is not an ISO 8601 time"),
        ({"item_id": "a", "label": "jug", "seconds": -1}, "seconds is -1, and not a number from 0; write seconds"),
        ({"item_id": "a", "label": "jug", "skipped": "maybe"}, "skipped is 'maybe'; write true or false"),
        ({"item_id": IDS[0], "file": f"{IDS[1]}.png", "label": "jug"}, "are two images; correct one of them"),
    ],
)
def test_a_row_that_cannot_be_taken_is_a_fault_and_the_others_are_read(row: dict[str, Any], fault: str) -> None:
    bad, good = read(as_file([row, {"item_id": "b", "label": "jug"}], "jsonl"), "a.jsonl")
    assert fault in bad.fault
    assert (bad.where, bad.value, good.value, good.fault) == ("line 1", None, "jug", "")


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("a.csv", "item_id\na\n", "/in/a.csv: no column 'label' among 'item_id'"),
        ("a.csv", "label\n1\n", "no column 'item_id' among 'label'; every row needs item_id or file, label"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", "item_id,label\n", "/in/a.csv: no rows; give the file that the vendor filled in"),
        ("a.jsonl", "", "no rows"),
        ("a.jsonl", '{"item_id": "a", "lable": "jug"}\n', "no column 'label' among 'item_id', 'lable'"),
        ("a.csv", "item_id,label,annotator\na,jug,ann\nb,ju", "line 3: truncated: .*; get the whole file"),
        ("a.jsonl", '{"item_id": "a", "label": "jug"}\n{"item_', "line 2: truncated: the file is cut off"),
        ("a.parquet", "PAR1....", "not a readable Parquet file"),
        ("a.csv", "item_id,label\na,cr\xe8me\n".encode("latin-1"), "not valid UTF-8: line 2"),
        ("a.csv", "item_id,label\na,jug\n".encode("utf-16"), "UTF-16; save it in UTF-8"),
        ("a.xlsx", "PK", "/in/a.xlsx: not a table of answers; give .csv, .tsv, .jsonl or .parquet"),
    ],
)
def test_a_file_that_is_no_table_of_answers_is_refused(path: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(content, path)


def test_shapes_and_masks() -> None:
    boxes = Question("boxes", ["cat"])
    shape = {"label": "cat", "box": [1, 2, 3, 4]}
    for form, label in (("csv", json.dumps([shape])), ("jsonl", [shape]), ("parquet", [shape])):
        (answer,) = read(as_file([{"item_id": "a", "label": label}], form), f"a.{form}", boxes)
        assert (answer.value, json.loads(answer.raw)) == ([shape], [shape])
    mask = Question("mask", ["cat"])
    assert said(read("item_id,label\na,masks/a.png\n", "in/a.csv", mask)) == [
        ("a", [{"label": "cat", "mask": "masks/a.png"}])
    ]


LABELS = st.sampled_from(["jug", 3, 2.5, True, None, ["jug"], ["jug", 3]])
SECONDS = st.sampled_from([1, 0.5, -1, None])
ROWS = st.fixed_dictionaries(
    {}, optional={"item_id": st.just("a"), "file": st.just("a.png"), "label": LABELS, "seconds": SECONDS, "x": LABELS}
)


@given(ROWS)
def test_the_schema_says_what_is_read(row: dict[str, Any]) -> None:
    check = jsonschema.Draft202012Validator(json.loads(schemas()["answers.schema.json"]))
    rows = [{"item_id": "z", "label": "jug"}, row]
    task = Question("classes" if isinstance(row.get("label"), list) else "class", [])
    answer = read(as_file(rows, "jsonl"), "a.jsonl", task)[1]
    assert check.is_valid(row) == (not answer.fault)


def test_the_first_answer_of_an_endless_file_is_there_at_once() -> None:
    for file in (
        endless_file("a.csv", "item_id,label\n", "a,jug\n"),
        endless_file("a.jsonl", "", '{"item_id": "a", "label": "jug"}\n'),
    ):
        assert said(itertools.islice(read_answers(file, VESSELS), 3)) == [("a", "jug")] * 3


@pytest.mark.parametrize(
    ("path", "head", "mine"),
    [
        ("b/a.csv", b"\xef\xbb\xbfitem_id,label\r\n", True),
        ("a.jsonl", b'{"file": "a.png", "label": null}\n', True),
        ("a.parquet", b"PAR1", True),
        ("tasks.csv", b"item_id,file,priority,bytes,sha256\n", False),
        ("metadata.csv", b"file_name,item_id,label\n", False),
        ("metadata.parquet", b"PAR1", False),
        ("a.json", b'[{"item_id": "a", "label": "jug"}]', False),
        ("a.csv", b"annotation_id,item_id,label,lead_time\n", False),
        ("a.csv", b"\xff\xfei\x00", False),
    ],
)
def test_a_file_of_answers_is_known_by_its_columns(path: str, head: bytes, mine: bool) -> None:
    assert is_mine(path, head) == mine


@pytest.mark.parametrize(("status", "skipped"), [("skipped", True), ("Cannot be labelled", True), ("done", False)])
def test_a_status_may_say_that_an_image_is_skipped(status: str, skipped: bool) -> None:
    content = f"item_id,label,status\n{'0' * 32},,{status}\n{'1' * 32},cat,{status}\n"
    file = AnswerFile("answers.csv", "answers.csv", lambda: io.BytesIO(content.encode()))
    first, second = read_answers(file, Question("class", ["cat"]))
    assert (first.skipped, first.reason) == (skipped, status if skipped else "")
    assert (second.skipped, second.value) == (False, "cat")
