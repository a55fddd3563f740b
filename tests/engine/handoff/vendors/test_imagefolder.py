"""A folder of images: sorted into a folder a class, or with metadata, it comes back with its labels."""

import csv
import io
import itertools
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.handoff.exchange import Answer, Question
from engine.handoff.vendors.imagefolder import is_mine, read_answers, write_tasks
from engine.tables.harmless import harmless
from tests.engine.handoff.vendors.table_batches import IDS, ITEM_IDS, QUESTIONS, VESSELS, outgoing, said
from tests.vendor_files import answer_file, endless_file

PNG = b"\x89PNG\r\n\x1a\n"


def read(content: str | bytes, path: str, question: Question = VESSELS) -> list[Answer]:
    return list(read_answers(answer_file(content, path), question))


def test_the_files_of_a_batch_show_no_order_but_that_of_names() -> None:
    files = dict(write_tasks(outgoing()))
    assert list(files) == ["metadata.csv", "classes.txt"]
    assert files["metadata.csv"].decode().splitlines() == ["file_name", *sorted(f"images/{i}.png" for i in IDS)]
    assert files["classes.txt"] == b"kettle\nteapot\njug\n"
    assert files == dict(write_tasks(outgoing(ids=IDS[::-1])))
    assert dict(write_tasks(outgoing(prefix="s3://b/"))) == files
    quiet = dict(write_tasks(outgoing(Question("class", ["a"]), prelabel="=x")))
    assert list(quiet) == ["metadata.csv", "classes.txt"]
    assert quiet["metadata.csv"].splitlines()[1] == f"images/{min(IDS)}.png,'=x".encode()


def test_the_loader_of_hugging_face_reads_what_is_sent_and_what_comes_back(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    image = pytest.importorskip("PIL.Image")
    for name, content in dict(write_tasks(outgoing())).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "images").mkdir()
    for item_id in IDS:
        image.new("RGB", (4, 4)).save(tmp_path / f"images/{item_id}.png")
    assert len(datasets.load_dataset("imagefolder", data_dir=str(tmp_path), split="train")) == 3


@given(ITEM_IDS, QUESTIONS, st.sampled_from(["csv", "jsonl", "parquet"]), st.data())
def test_metadata_with_labels_come_back(ids: list[str], question: Question, form: str, data: st.DataObject) -> None:
    sent = csv.DictReader(io.StringIO(dict(write_tasks(outgoing(question, ids)))["metadata.csv"].decode()))
    rows: list[dict[str, Any]] = []
    meant = []
    for row in sent:
        label: Any = data.draw(st.sampled_from(question.classes))
        if question.task == "classes":
            label = sorted(data.draw(st.sets(st.sampled_from(question.classes))))
        meant.append((row["file_name"], label))
        text = json.dumps(label) if question.task == "classes" and form == "csv" else label
        rows.append({**row, "label": harmless(text) if form == "csv" else text})
    content: str | bytes = "".join(json.dumps(row) + "\n" for row in rows)
    if form == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        content = sink.getvalue()
    elif form == "csv":
        lines = io.StringIO(newline="")
        csv.writer(lines).writerows([rows[0].keys(), *(row.values() for row in rows)])
        content = lines.getvalue()
    assert said(read(content, f"x/metadata.{form}", question)) == meant


@given(ITEM_IDS, QUESTIONS, st.sampled_from(["NFC", "NFD"]), st.data())
def test_a_folder_is_a_class(ids: list[str], question: Question, form: Any, data: st.DataObject) -> None:
    for item_id in ids:
        label = data.draw(st.sampled_from(question.classes))
        folder = unicodedata.normalize(form, label)
        if "/" not in label and label != "images":
            path = f"data/{folder}/{item_id}.png"
            assert said(read(PNG, path, question)) == [
                (f"{item_id}.png", label if question.task == "class" else [label])
            ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("jug/a.png", "jug"), ("x/jug/a.JPEG", "jug"), ("3.0/a.webp", "3"), ("a.png", None), ("images/a.png", None),
        ("jug/images/a.png", None), ("train/a.png", None), ("train/jug/a.png", "jug"), ("new/a.png", "new"),
    ],
)  # fmt: skip
def test_where_an_image_lies_is_its_answer(path: str, value: str | None) -> None:
    name = path.rpartition("/")[2]
    assert read(PNG, path) == [Answer("image", name, value)]
    assert read(PNG, path, Question("boxes", [])) == [Answer("image", name, None)]


def test_a_class_may_be_called_train_and_a_folder_with_a_control_character_is_a_fault() -> None:
    assert said(read(PNG, "train/a.png", Question("class", ["train", "car"]))) == [("a.png", "train")]
    assert "with a line break" in read(PNG, "a\nb/a.png")[0].fault


def test_what_was_sent_and_the_other_files_label_nothing() -> None:
    for name, content in dict(write_tasks(outgoing(prelabel="jug"))).items():
        assert {value for _, value in said(read(content, name))} <= {None}


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("metadata.csv", "file_name,lable\na.png,jug\n", "no column 'label' among 'file_name', 'lable'; add it"),
        ("metadata.jsonl", '{"file_name": "a.png"}\n', "no column 'label' among 'file_name'; every row needs"),
        ("metadata.csv", "name,label\na.png,jug\n", "no column 'file_name' among 'name', 'label'"),
        ("metadata.csv", "file_name,label\na.png,jug\nb.p", "line 3: truncated: "),
        ("metadata.jsonl", '{"file_name": "a.png", "label": "jug"}\n{"fi', "line 2: truncated: the file is cut off"),
        ("metadata.csv", "", "the file is empty"),
        ("metadata.csv", "file_name,label\n", "no rows"),
        ("metadata.csv", "file_name,label\na.png,jug\n".encode("utf-16"), "UTF-16; save it in UTF-8"),
        ("metadata.csv", b"file_name,label\na.png,cr\xe8me\n", "not valid UTF-8: line 2"),
        (
            "answers.csv",
            "file_name,label\na.png,jug\n",
            "/in/answers.csv: no image and no metadata; give a folder a class",
        ),
        ("metadata.xml", "<a/>", "no image and no metadata"),
    ],
)
def test_a_file_that_is_neither_image_nor_metadata_is_refused(path: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(content, path)


def test_a_row_that_cannot_be_taken_is_a_fault() -> None:
    blank, wrong = read(
        '{"file_name": "", "label": "jug"}\n{"file_name": "a.png", "label": ["jug"]}\n', "metadata.jsonl"
    )
    assert blank.fault == "no 'file_name'; write it, or take the row out"
    assert wrong.fault.startswith("label is several values")


def test_the_first_answer_of_endless_metadata_is_there_at_once() -> None:
    file = endless_file("metadata.csv", "file_name,label,more\n", "images/a.png,jug,x\n")
    assert said(itertools.islice(read_answers(file, VESSELS), 2)) == [("images/a.png", "jug")] * 2


@pytest.mark.parametrize(
    ("path", "head", "mine"),
    [
        ("jug/a.png", PNG, True), ("jug/a.png", b"<html>", False), ("x/metadata.csv", b"file_name,label\n", True),
        ("metadata.jsonl", b'{"file_name": "a.png"}\n', True), ("metadata.parquet", b"PAR1", True),
        ("metadata.csv", b"item_id,label\n", False), ("a.csv", b"file_name,label\n", False),
        ("a.parquet", b"PAR1", False),
    ],
)  # fmt: skip
def test_images_and_metadata_are_known(path: str, head: bytes, mine: bool) -> None:
    assert is_mine(path, head) == mine
