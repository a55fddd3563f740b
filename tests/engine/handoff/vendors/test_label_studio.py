"""Label Studio: the tasks that go out, and every annotation of the export."""

import json
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, InputError
from engine.handoff.exchange import Answer, Outgoing, Question
from engine.handoff.vendors import label_studio
from engine.handoff.vendors.label_studio import is_mine, read_answers, write_tasks
from tests.json_answers import CLASS_NAMES, ITEM_IDS, refuse, require_refused
from tests.vendor_files import answer_file, endless_file, outgoing

QUESTION = Question("class", ["kettle", "teapot", "jug"], "Which vessel?")
WHEN = "2026-11-20T10:00:05.200000Z"
A, B = "a" * 32, "b" * 32


def choices(*names: str, control: str = "class") -> dict[str, Any]:
    return {"from_name": control, "to_name": "image", "type": "choices", "value": {"choices": list(names)}}


def region(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "from_name": "x", "original_width": 200, "original_height": 50, "value": value}


def annotation(number: int, *results: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "id": number,
        "completed_by": 2,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": True,
        "created_at": "2026-11-20T09:00:00Z",
        "updated_at": WHEN,
        "lead_time": 4.2,
        "unique_id": f"00000000-0000-4000-8000-{number:012}",
        **other,
    }


def exported(item_id: str, *annotations: dict[str, Any], **other: Any) -> dict[str, Any]:
    data = {"image": f"https://img.example.org/{item_id}.png", "item_id": item_id}
    return {"id": 1, "annotations": list(annotations), "drafts": [], "predictions": [], "data": data, **other}


def read(*tasks: dict[str, Any], question: Question = QUESTION) -> list[Answer]:
    return list(read_answers(answer_file(json.dumps(tasks, indent=1)), question))


def files_of(batch: Outgoing) -> dict[str, bytes]:
    first = list(write_tasks(batch))
    assert first == list(write_tasks(batch))
    assert len(first) == len(dict(first))
    return dict(first)


def test_tasks_and_configuration() -> None:
    files = files_of(outgoing(QUESTION, [A, B]))
    assert list(files) == ["labeling_config.xml", "tasks.json"]
    assert json.loads(files["tasks.json"]) == [
        {"data": {"image": f"/data/local-files/?d=images/{item_id}.png", "item_id": item_id}} for item_id in (A, B)
    ]
    view = ElementTree.fromstring(files["labeling_config.xml"])
    assert [(tag.tag, tag.attrib) for tag in view] == [
        ("Header", {"value": "Which vessel?"}),
        ("Image", {"name": "image", "value": "$image"}),
        ("Choices", {"name": "class", "toName": "image", "choice": "single", "required": "true"}),
    ]
    assert [choice.attrib for choice in view[2]] == [{"value": name} for name in QUESTION.classes]


def test_links_stay_as_they_are() -> None:
    files = files_of(outgoing(QUESTION, [A], links="s3://bucket/h/"))
    assert json.loads(files["tasks.json"])[0]["data"]["image"] == f"s3://bucket/h/{A}.png"


@pytest.mark.parametrize(
    ("task", "controls"),
    [
        ("classes", [("Choices", "Choice")]),
        ("boxes", [("RectangleLabels", "Label"), ("PolygonLabels", "Label")]),
        ("mask", [("BrushLabels", "Label")]),
    ],
)
def test_a_control_for_each_task(task: Any, controls: list[tuple[str, str]]) -> None:
    files = files_of(outgoing(QUESTION._replace(task=task, instructions=""), [A]))
    image, *found = ElementTree.fromstring(files["labeling_config.xml"])
    assert [(control.tag, control[0].tag) for control in found] == controls
    assert image.get("name") == {control.get("toName") for control in found}.pop()
    assert all("required" not in control.attrib for control in found)
    assert all([tag.get("value") for tag in control] == QUESTION.classes for control in found)


def test_prelabels_only_where_there_are_some() -> None:
    batch = outgoing(QUESTION, [A, B])
    batch = batch._replace(tasks=[batch.tasks[0]._replace(prelabel="jug"), batch.tasks[1]])
    guessed, other = json.loads(files_of(batch)["tasks.json"])
    assert guessed["predictions"] == [{"model_version": "prelabel", "result": [choices("jug")]}]
    assert "predictions" not in other
    shapes = batch._replace(question=QUESTION._replace(task="boxes"))
    assert b"predictions" not in files_of(shapes)["tasks.json"]
    with pytest.raises(ConfigError, match=r"lacks 'vase'.*; add it"):
        list(write_tasks(batch._replace(tasks=[batch.tasks[0]._replace(prelabel="vase")])))


def test_many_tasks_go_into_several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_studio, "_MOST_TASKS", 2)
    files = files_of(outgoing(QUESTION, [f"{n:032x}" for n in range(5)]))
    assert list(files) == ["labeling_config.xml", "tasks-001.json", "tasks-002.json", "tasks-003.json"]
    found = [task["data"]["item_id"] for name in list(files)[1:] for task in json.loads(files[name])]
    assert found == [f"{n:032x}" for n in range(5)]


def test_text_that_label_studio_would_read_otherwise() -> None:
    question = QUESTION._replace(instructions='For $5: "<b>"\n\x0b$')
    header = ElementTree.fromstring(files_of(outgoing(question, [A]))["labeling_config.xml"])[0]
    assert header.get("value") == 'For $ 5: "<b>"\n $'
    with pytest.raises(ConfigError, match=r"'\$image'.*rename it"):
        list(write_tasks(outgoing(Question("class", ["$image"]), [A])))
    with pytest.raises(ConfigError, match=r"handoff.question.classes is empty.*; name them"):
        list(write_tasks(outgoing(Question("class", []), [A])))


@given(
    st.lists(ITEM_IDS, min_size=1, max_size=4, unique=True),
    st.lists(CLASS_NAMES.filter(lambda name: "$" not in name), min_size=1, max_size=4, unique=True),
    st.booleans(),
    st.data(),
)
def test_answers_come_back_as_they_were_given(ids: list[str], classes: list[str], ascii_: bool, data: Any) -> None:
    question = Question("classes", classes)
    files = files_of(outgoing(question, ids))
    controls = ElementTree.fromstring(files["labeling_config.xml"]).find("Choices")
    assert controls is not None
    assert [choice.get("value") for choice in controls] == classes
    chosen = data.draw(st.lists(st.lists(st.sampled_from(classes), unique=True), min_size=len(ids), max_size=len(ids)))
    tasks = json.loads(files["tasks.json"])
    export = [
        {**task, "annotations": [annotation(n, choices(*picked), completed_by=n + 5)]}
        for n, (task, picked) in enumerate(zip(tasks, chosen, strict=True))
    ]
    answers = list(read_answers(answer_file(json.dumps(export, ensure_ascii=ascii_)), question))
    assert [(answer.item, answer.value, answer.annotator, answer.fault) for answer in answers] == [
        (item_id, sorted(picked), str(n + 5), "") for n, (item_id, picked) in enumerate(zip(ids, chosen, strict=True))
    ]


def test_every_annotation_is_an_answer() -> None:
    first = annotation(1, choices("kettle"))
    second = annotation(2, choices("teapot", control="renamed"), completed_by={"id": 3, "email": "w@x.example"})
    answers = read(exported(A, first, second, drafts=[{"result": [choices("jug")]}], extra={"any": [1]}), exported(B))
    common = {"answered_at": datetime(2026, 11, 20, 10, 0, 5, 200000, UTC), "seconds": 4.2}
    assert answers == [
        Answer("record 1", A, "kettle", "2", "00000000-0000-4000-8000-000000000001", **common),
        Answer("record 1", A, "teapot", "3", "00000000-0000-4000-8000-000000000002", **common),
        Answer("record 2", B, None),
    ]


def test_cancelled_annotations_are_skipped() -> None:
    (answer,) = read(exported(A, annotation(1, was_cancelled=True)))
    assert (answer.value, answer.skipped, answer.reason, answer.fault) == (None, True, "cancelled", "")
    assert answer.annotator == "2"


def test_ids_of_older_servers_and_unknown_people() -> None:
    (answer,) = read(exported(A, annotation(7, choices("jug"), unique_id=None, completed_by=None, lead_time=None)))
    assert (answer.answer_id, answer.annotator, answer.seconds) == ("7", "7", None)


def test_this_question_among_others() -> None:
    other = choices("blurred", control="quality")
    (answer,) = read(exported(A, annotation(1, other, choices("jug"), {"type": "textarea", "value": {}})))
    assert answer.value == "jug"


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "no class"),
        ([choices("jug", "kettle")], "the classes 'jug', 'kettle', not one"),
        ([region("rectanglelabels", {})], "no class"),
    ],
)
def test_an_annotation_that_does_not_answer(results: list[dict[str, Any]], message: str) -> None:
    bad, good = read(exported(A, annotation(1, *results), annotation(2, choices("jug"))))
    assert f"annotation 00000000-0000-4000-8000-000000000001 has {message}; correct it" in bad.fault
    assert (bad.item, bad.value, good.fault, good.value) == (A, None, "", "jug")


@pytest.mark.parametrize(
    "task",
    [
        exported(A, {"result": [], "completed_by": 1}),
        exported(A, annotation(1, {"type": "choices"})),
        exported(A, annotation(1, choices("jug"), updated_at="yesterday")),
        {"data": "x", "annotations": []},
        {"data": {}, "annotations": []},
        {"data": {"item_id": A}, "annotations": 7},
        {"data": {"item_id": A}, "annotations": [None]},
        exported(A, annotation(1, {"type": "choices", "value": {"choices": [["jug"]]}})),
    ],
)
def test_a_record_of_another_form_is_one_fault(task: dict[str, Any]) -> None:
    bad, good = read(task, exported(B, annotation(2, choices("jug"))))
    assert bad.fault
    assert ";" in bad.fault
    assert "\n" not in bad.fault
    assert (good.item, good.value) == (B, "jug")


def test_shapes_in_pixels() -> None:
    box = {"x": 10, "y": 20, "width": 50, "height": 10, "rotation": 0, "rectanglelabels": ["kettle"]}
    polygon = {"points": [[0, 0], [100, 0], [50, 100]], "closed": True, "polygonlabels": ["jug"]}
    brush = {"format": "rle", "rle": [1, 2, 3], "brushlabels": ["teapot"]}
    results = [
        region("rectanglelabels", box),
        region("rectanglelabels", {**box, "rotation": 45}),
        region("polygonlabels", polygon),
        region("brushlabels", brush),
        choices("ignored"),
    ]
    (answer,) = read(exported(A, annotation(1, *results)), question=QUESTION._replace(task="boxes"))
    assert answer.value == [
        {"label": "kettle", "box": [20, 10, 100, 5]},
        {"label": "kettle", "box": [20, 10, 100, 5], "rotation": 45},
        {"label": "jug", "polygon": [[0, 0], [200, 0], [100, 50]]},
        {"label": "teapot", "mask": {"format": "rle", "rle": [1, 2, 3], "size": [200, 50]}},
    ]
    assert json.loads(answer.raw) == results
    assert "\n" not in answer.raw


def test_no_shapes_is_an_answer_and_an_unknown_one_a_fault() -> None:
    question = QUESTION._replace(task="boxes")
    (none,) = read(exported(A, annotation(1)), question=question)
    assert (none.value, none.fault) == ([], "")
    (bad,) = read(exported(A, annotation(1, region("ellipselabels", {}))), question=question)
    assert "a result of type 'ellipselabels'" in bad.fault


def test_files_that_cannot_be_read() -> None:
    whole = json.dumps([exported(A, annotation(1, choices("kettle"))), exported(B)], indent=2) + "\n"
    require_refused(read_answers, QUESTION, whole)
    marked = list(read_answers(answer_file(b"\xef\xbb\xbf" + whole.encode()), QUESTION))
    assert [answer.value for answer in marked] == ["kettle", None]


def test_exports_that_leave_out_what_was_cancelled_are_refused() -> None:
    reduced = {
        "image": "x",
        "item_id": A,
        "id": 1,
        "class": "jug",
        "annotator": 2,
        "annotation_id": 1,
        "lead_time": 4.2,
    }
    table = "image,item_id,id,class,annotator,annotation_id,created_at,updated_at,lead_time\nx,a,1,jug,2,1,x,x,4.2\n"
    for name, text in (("a.json", json.dumps([reduced])), ("a.csv", table), ("a.tsv", table.replace(",", "\t"))):
        refuse(read_answers, text.encode(), QUESTION, "leaves out the cancelled annotations; export JSON")
        assert is_mine(name, text.encode())


def test_the_tasks_that_went_out_are_no_answers() -> None:
    tasks = files_of(outgoing(QUESTION, [A]))["tasks.json"]
    refuse(read_answers, tasks, QUESTION, "give the JSON export")
    assert not is_mine("tasks.json", tasks)


def test_what_looks_like_an_export() -> None:
    assert is_mine("x/export.json", json.dumps([exported(A, annotation(1, choices("jug")))])[:300].encode())
    assert is_mine("export.JSON", b'[{"id":1,"annotations":[],"total_annotations":0,"data":{}}]')
    assert not is_mine("answers.csv", b"item_id,label,annotator\n")
    assert not is_mine("coco.json", b'{"images":[],"annotations":[],"categories":[]}')
    assert not is_mine("a.xml", b'<annotations><"was_cancelled"/>')


def test_reads_one_task_at_a_time() -> None:
    endless = endless_file("a.json", "[", json.dumps(exported(A, annotation(1, choices("jug")))) + ",")
    answers = read_answers(endless, QUESTION)
    assert [next(answers).value for _ in range(1000)] == ["jug"] * 1000


def test_an_empty_export_has_no_answers() -> None:
    assert read() == []
    with pytest.raises(InputError, match="record 1: not a task"):
        read({"id": 1})
