"""Labelbox: the data rows that go out, and every label of the export."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.handoff.exchange import Answer, Outgoing, Question
from engine.handoff.vendors import labelbox
from engine.handoff.vendors.labelbox import is_mine, read_answers, write_tasks
from tests.json_answers import CLASS_NAMES, ITEM_IDS, require_refused
from tests.vendor_files import answer_file, endless_file, outgoing

QUESTION = Question("class", ["kettle", "teapot", "jug"], "Which vessel?")
A, B = "a" * 32, "b" * 32


def radio(name: str, question: str = "class") -> dict[str, Any]:
    answer = {"feature_id": "f1", "name": name, "value": name.lower(), "classifications": []}
    return {"feature_id": "f0", "name": question, "value": question, "radio_answer": answer}


def checklist(*names: str) -> dict[str, Any]:
    return {"name": "class", "value": "class", "checklist_answers": [{"name": name, "value": name} for name in names]}


def label(
    number: int, *classifications: dict[str, Any], objects: list[Any] | None = None, **other: Any
) -> dict[str, Any]:
    return {
        "label_kind": "Default",
        "id": f"lb{number}",
        "label_details": {
            "created_at": "2026-11-20T09:00:00.000+00:00",
            "updated_at": "2026-11-20T10:00:05.000+00:00",
            "created_by": f"w{number}@vendor.example",
        },
        "performance_details": {"seconds_to_create": 4, "skipped": False},
        "annotations": {"objects": objects or [], "classifications": list(classifications), "relationships": []},
        **other,
    }


def exported(item_id: str, *labels: dict[str, Any]) -> dict[str, Any]:
    projects = {"prj0": {"name": "vessels", "labels": list(labels), "project_details": {"priority": 5}}}
    return {"data_row": {"id": "dr0", "global_key": item_id, "row_data": "https://x"}, "projects": projects}


def read(*rows: dict[str, Any], question: Question = QUESTION) -> list[Answer]:
    return list(read_answers(answer_file("".join(f"{json.dumps(row)}\n" for row in rows), "e.ndjson"), question))


def files_of(batch: Outgoing) -> dict[str, bytes]:
    first = list(write_tasks(batch))
    assert first == list(write_tasks(batch))
    assert len(first) == len(dict(first))
    return dict(first)


def test_data_rows_have_the_keys_that_are_accepted() -> None:
    files = files_of(outgoing(QUESTION, [A, B], links="https://img.example.org/h/", annotators=3))
    assert set(files) == {"ontology.json", "data_rows.json", "batch.json"}
    assert json.loads(files["data_rows.json"]) == [
        {"row_data": f"https://img.example.org/h/{item_id}.png", "global_key": item_id, "media_type": "IMAGE"}
        for item_id in (A, B)
    ]
    consensus = {"number_of_labels": 3, "coverage_percentage": 1.0}
    assert json.loads(files["batch.json"]) == {
        "name": "Vessels-r000-b000",
        "priority": 5,
        "consensus_settings": consensus,
    }
    (asked,) = json.loads(files["ontology.json"])["classifications"]
    assert (asked["type"], asked["name"], asked["instructions"]) == ("radio", "class", "Which vessel?")
    assert [option["label"] for option in asked["options"]] == QUESTION.classes


def test_files_travel_by_their_name_and_one_annotator_needs_no_consensus() -> None:
    files = files_of(outgoing(QUESTION, [A]))
    assert json.loads(files["data_rows.json"])[0]["row_data"] == f"images/{A}.png"
    assert "consensus_settings" not in json.loads(files["batch.json"])


def test_s3_links_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=rf"s3://bucket/{A}.png: labelbox takes no s3:// links; set handoff.link_days"
    ):
        list(write_tasks(outgoing(QUESTION, [A], links="s3://bucket/")))


def test_a_batch_has_at_most_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelbox, "_MOST_ROWS", 2)
    files = files_of(outgoing(QUESTION, [f"{n:032x}" for n in range(3)]))
    assert [len(json.loads(files[f"data_rows-00{n}.json"])) for n in (1, 2)] == [2, 1]
    assert [json.loads(files[f"batch-00{n}.json"])["name"] for n in (1, 2)] == [
        "Vessels-r000-b000-001",
        "Vessels-r000-b000-002",
    ]
    assert len(files) == 5


@pytest.mark.parametrize(("task", "tool"), [("boxes", "rectangle"), ("mask", "raster-segmentation")])
def test_a_tool_for_each_class(task: Any, tool: str) -> None:
    ontology = json.loads(files_of(outgoing(QUESTION._replace(task=task), [A]))["ontology.json"])
    assert [(found["tool"], found["name"]) for found in ontology["tools"]] == [
        (tool, name) for name in QUESTION.classes
    ]
    assert len({found["color"] for found in ontology["tools"]}) == 3
    assert ontology["classifications"] == []


@pytest.mark.parametrize(("task", "answer"), [("class", {"name": "jug"}), ("classes", [{"name": "jug"}])])
def test_prelabels_only_where_there_are_some(task: Any, answer: Any) -> None:
    batch = outgoing(QUESTION._replace(task=task), [A, B])
    batch = batch._replace(tasks=[batch.tasks[0]._replace(prelabel="jug"), batch.tasks[1]])
    (line,) = files_of(batch)["prelabels.ndjson"].splitlines()
    found = json.loads(line)
    assert len(found.pop("uuid")) == 36
    assert found == {"dataRow": {"globalKey": A}, "name": "class", "answer": answer}
    assert "prelabels.ndjson" not in files_of(batch._replace(question=QUESTION._replace(task="boxes")))


@given(
    st.lists(ITEM_IDS, min_size=1, max_size=4, unique=True),
    st.lists(CLASS_NAMES, min_size=1, max_size=4, unique=True),
    st.data(),
)
def test_answers_come_back_as_they_were_given(ids: list[str], classes: list[str], data: Any) -> None:
    files = files_of(outgoing(Question("class", classes), ids))
    keys = [row["global_key"] for row in json.loads(files["data_rows.json"])]
    options = json.loads(files["ontology.json"])["classifications"][0]["options"]
    chosen = data.draw(st.lists(st.sampled_from(options), min_size=len(ids), max_size=len(ids)))
    rows = [
        exported(key, label(n, radio(option["label"])))
        for n, (key, option) in enumerate(zip(keys, chosen, strict=True))
    ]
    answers = read(*rows, question=Question("class", classes))
    assert [(answer.item, answer.value, answer.annotator, answer.answer_id) for answer in answers] == [
        (item_id, option["label"], f"w{n}@vendor.example", f"lb{n}")
        for n, (item_id, option) in enumerate(zip(ids, chosen, strict=True))
    ]


def test_every_label_of_every_project_is_an_answer() -> None:
    row = exported(A, label(1, radio("kettle")))
    row["projects"]["prj1"] = {"labels": [label(2, radio("Tea pot", "vessel"))]}
    when = datetime(2026, 11, 20, 10, 0, 5, tzinfo=UTC)
    assert read(row, exported(B)) == [
        Answer("record 1", A, "kettle", "w1@vendor.example", "lb1", when, 4.0),
        Answer("record 1", A, "Tea pot", "w2@vendor.example", "lb2", when, 4.0),
        Answer("record 2", B, None),
    ]


def test_skipped_labels() -> None:
    (answer,) = read(exported(A, label(1, performance_details={"skipped": True, "seconds_to_create": 9})))
    assert (answer.value, answer.skipped, answer.reason, answer.seconds) == (None, True, "skipped", 9)


def test_blocks_that_an_export_may_lack() -> None:
    bare = {"id": "lb1", "annotations": {"classifications": [radio("jug")]}}
    rows = [
        {"data_row": {"global_key": A}},
        {"data_row": {"global_key": A}, "projects": {}},
        {"data_row": {"global_key": A}, "projects": {"p": {}}},
        {"data_row": {"row_data": f"https://x/{B}.png?sig=a/b"}, "projects": {"p": {"labels": [bare]}}},
    ]
    *none, answer = read(*rows)
    assert [(found.item, found.value, found.fault) for found in none] == [(A, None, "")] * 3
    # Of an unknown person, who is not the final word of all.
    assert (answer.item, answer.value, answer.annotator) == (f"https://x/{B}.png", "jug", "lb1")


def test_several_classes() -> None:
    question = QUESTION._replace(task="classes")
    row = exported(A, label(1, checklist("teapot", "jug")), label(2))
    assert [answer.value for answer in read(row, question=question)] == [["jug", "teapot"], []]


@pytest.mark.parametrize(
    ("answers", "message"),
    [([], "no class"), ([checklist("jug", "kettle")], "the classes 'jug', 'kettle', not one")],
)
def test_a_label_that_does_not_answer(answers: list[Any], message: str) -> None:
    bad, good = read(exported(A, label(1, *answers), label(2, radio("jug"))))
    assert bad.fault == f"label lb1 has {message}; correct it in Labelbox and export again"
    assert (bad.value, bad.item, good.value, good.fault) == (None, A, "jug", "")


@pytest.mark.parametrize(
    "row",
    [
        {"data_row": 1},
        {"data_row": {}},
        {"data_row": {"global_key": A}, "projects": [1]},
        {"data_row": {"global_key": A}, "projects": {"p": {"labels": [1]}}},
        exported(A, {"id": "lb1"}),
        exported(A, label(1, {"radio_answer": "jug"})),
    ],
)
def test_a_record_of_another_form_is_one_fault(row: dict[str, Any]) -> None:
    bad, good = read(row, exported(B, label(2, radio("jug"))))
    assert ";" in bad.fault
    assert "\n" not in bad.fault
    assert (good.item, good.value) == (B, "jug")


def test_shapes() -> None:
    box = {"top": 1.5, "left": 2, "height": 3, "width": 4}
    objects = [
        {"name": "kettle", "annotation_kind": "ImageBoundingBox", "bounding_box": box},
        {"name": "jug", "polygon": [{"x": 0, "y": 0.5}, {"x": 1, "y": 0}, {"x": 1, "y": 1}]},
        {"name": "jug", "mask": {"url": "https://api.example.org/mask"}},
    ]
    question = QUESTION._replace(task="boxes")
    (answer, empty, bad) = read(
        exported(A, label(1, objects=objects), label(2), label(3, objects=[{"name": "jug", "line": []}])),
        question=question,
    )
    assert answer.value == [
        {"label": "kettle", "box": [2, 1.5, 4, 3]},
        {"label": "jug", "polygon": [[0, 0.5], [1, 0], [1, 1]]},
        {"label": "jug", "mask": {"url": "https://api.example.org/mask"}},
    ]
    assert json.loads(answer.raw) == objects
    assert empty.value == []
    assert "an object 'jug' that is no box" in bad.fault


def test_files_that_cannot_be_read() -> None:
    rows = [exported(A, label(1, radio("kettle"))), exported(B)]
    require_refused(read_answers, QUESTION, "".join(f"{json.dumps(row)}\n" for row in rows), cuts_at_lines=True)
    assert len(list(read_answers(answer_file(json.dumps(rows)), QUESTION))) == 2


def test_what_looks_like_an_export() -> None:
    row = json.dumps(exported(A, label(1, radio("jug")))).encode()
    assert is_mine("a/export.ndjson", row[:200])
    assert not is_mine("export.txt", row)
    for name, content in files_of(outgoing(QUESTION, [A])).items():
        assert not is_mine(name, content)


def test_reads_one_row_at_a_time() -> None:
    answers = read_answers(
        endless_file("a.ndjson", "", json.dumps(exported(A, label(1, radio("jug")))) + "\n"), QUESTION
    )
    assert [next(answers).value for _ in range(1000)] == ["jug"] * 1000
