"""Encord: images to register and an ontology out, label rows back."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.handoff.exchange import Question
from engine.handoff.vendors import encord
from tests.vendor_files import (
    CLASSES,
    answers,
    assert_no_cut_is_taken,
    batch_of,
    class_names,
    endless_file,
    item_id,
    item_ids,
    people,
    refused,
    written,
)

CLASS, BOXES, MASK = Question("class", CLASSES), Question("boxes", CLASSES), Question("mask", CLASSES)
SIGNED = {"createdAt": "Tue, 17 Jan 2023 11:44:53 UTC", "createdBy": "a@x.org", "confidence": 1}
CORRECTED = {"lastEditedAt": "2023-01-18 09:00:00", "lastEditedBy": "b@x.org"}


def answer_of(question: str, *names: str) -> dict[str, Any]:
    options = [{"name": name, "value": name.lower().replace(" ", "_"), "featureHash": "f"} for name in names]
    return {"name": question, "value": question, "answers": options, "featureHash": "f", "manualAnnotation": True}


def row_of(
    title: str, *questions: dict[str, Any], objects: Any = (), is_global: bool = False, **other: Any
) -> dict[str, Any]:
    """As the SDK's LabelRowV2 writes it for one image."""
    by = SIGNED | other.pop("by", {})
    hashes = [f"h{number}" for number in range(len(questions))]
    here = [] if is_global else [{"classificationHash": hash_, "name": "q", **by} for hash_ in hashes]
    unit = {"data_hash": "u", "data_title": title, "data_type": "image/png", "width": 48, "height": 32}
    unit["labels"] = {"objects": [{**by, **each} for each in objects], "classifications": here}
    entries = {h: {"classificationHash": h, "classifications": [q]} for h, q in zip(hashes, questions, strict=True)}
    if is_global:
        entries = {h: entry | by | {"range": []} for h, entry in entries.items()}
    head = {"label_hash": "row", "branch_name": "main", "data_hash": "u", "data_title": title, "data_type": "image"}
    tail = {"object_answers": {}, "classification_answers": entries, "object_actions": {}, "label_status": "X"}
    return {**head, "data_units": {"u": unit}, **tail, **other}


def boxed(name: str, x: float, y: float, w: float, h: float) -> dict[str, Any]:
    return {"name": name, "shape": "bounding_box", "boundingBox": {"x": x, "y": y, "w": w, "h": h}}


def test_images_are_registered_by_unsigned_urls() -> None:
    files = written(encord, batch_of(base="https://b.s3.amazonaws.com/p/"))
    assert list(files) == ["upload.json", "ontology.json"]
    name = item_id(0)
    first = {"title": name, "clientMetadata": {"item_id": name}}
    upload = json.loads(files["upload.json"])
    assert upload["skip_duplicate_urls"] is True
    assert upload["images"][0] == {"objectUrl": f"https://b.s3.amazonaws.com/p/{name}.png", **first}
    batch = batch_of(base="https://b.s3.amazonaws.com/p/")
    signed = [task._replace(link=f"{task.link}?X-Amz-Date=1&X-Amz-Signature=abc") for task in batch.tasks]
    assert written(encord, batch._replace(tasks=signed)) == files
    plain = [task._replace(link=f"{task.link}?v=1") for task in batch.tasks]
    assert b".png?v=1" in written(encord, batch._replace(tasks=plain))["upload.json"]
    assert json.loads(written(encord, batch_of())["upload.json"])["images"][0]["objectUrl"] == f"images/{name}.png"


def test_many_images_are_several_files() -> None:
    batch = batch_of()
    files = written(encord, batch._replace(tasks=batch.tasks * 3334))
    assert [name for name in files if name.startswith("upload")] == ["upload-001.json", "upload-002.json"]
    assert [len(json.loads(files[f"upload-00{n}.json"])["images"]) for n in (1, 2)] == [10_000, 2]


def test_the_ontology_is_the_question() -> None:
    (attribute,) = json.loads(written(encord, batch_of())["ontology.json"])["classifications"][0]["attributes"]
    assert (attribute["name"], attribute["type"], attribute["required"]) == ("class", "radio", True)
    assert [option["label"] for option in attribute["options"]] == CLASSES
    several = json.loads(written(encord, batch_of("classes"))["ontology.json"])
    # None of the classes is an answer too.
    attribute = several["classifications"][0]["attributes"][0]
    assert (attribute["type"], attribute["required"]) == ("checklist", False)
    for task, shape in (("boxes", "bounding_box"), ("mask", "bitmask")):
        objects = json.loads(written(encord, batch_of(task))["ontology.json"])["objects"]  # type: ignore[arg-type]
        assert [entry["name"] for entry in objects] == CLASSES
        assert {entry["shape"] for entry in objects} == {shape}
        assert len({entry["featureNodeHash"] for entry in objects} | {entry["color"] for entry in objects}) == 8


@given(item_ids, class_names, st.booleans(), st.data())
def test_what_annotators_say_comes_back(
    ids: list[str], classes: list[str], is_global: bool, data: st.DataObject
) -> None:
    files = written(encord, batch_of("class", ids, classes))
    (attribute,) = json.loads(files["ontology.json"])["classifications"][0]["attributes"]
    labels = [option["label"] for option in attribute["options"]]
    titles = [entry["title"] for entry in json.loads(files["upload.json"])["images"]]
    said = [data.draw(st.none() | st.tuples(st.sampled_from(labels), people)) for _ in titles]
    rows = [
        row_of(
            title,
            *([answer_of("class", one[0])] if one else []),
            is_global=is_global,
            by={"createdBy": one[1] if one else ""},
        )
        for title, one in zip(titles, said, strict=True)
    ]
    back = answers(
        encord, json.dumps(rows, ensure_ascii=data.draw(st.booleans())), "a.json", Question("class", classes)
    )
    assert [answer.item for answer in back] == ids
    assert [answer.value and (answer.value, answer.annotator) for answer in back] == said
    assert not any(answer.fault or answer.skipped for answer in back)


def test_who_said_it_last_and_when() -> None:
    rows = [
        row_of("a", answer_of("class", "kettle")),
        row_of("a.png", answer_of("class", "=1+1"), by=CORRECTED, branch_name="annotator-2"),
        row_of("b", client_metadata={"item_id": "c"}, new=1),
    ]
    first, second, none = answers(encord, json.dumps(rows), "a.json", CLASS)
    assert (first.answer_id, first.annotator, first.where) == ("row/u", "a@x.org", "label row 1")
    assert first.answered_at == datetime(2023, 1, 17, 11, 44, 53, tzinfo=UTC)
    assert (second.answer_id, second.annotator) == ("row/u/annotator-2", "b@x.org")
    assert second.answered_at == datetime(2023, 1, 18, 9, tzinfo=UTC)
    assert (none.item, none.value, none.annotator, none.skipped) == ("c", None, "", False)
    (alone,) = answers(encord, json.dumps(rows[0]), "a.json", CLASS)
    assert alone == first


def test_the_question_is_found_among_several() -> None:
    nested = {"name": "Why?", "value": "why", "answers": "the spout", "featureHash": "f"}
    own, other = answer_of("class", "kettle"), answer_of("Colour", "red")
    for questions in ((other, own), (own, nested), (answer_of("Which?", "kettle"), nested)):
        assert answers(encord, json.dumps([row_of("a", *questions)]), "a.json", CLASS)[0].value == "kettle"
    (fault,) = answers(encord, json.dumps([row_of("a", other, answer_of("Which?", "a"))]), "a.json", CLASS)
    assert fault.fault == "answers to several questions, 'Colour', 'Which?'; call the one that counts 'class'"
    (fault,) = answers(encord, json.dumps([row_of("a", own, answer_of("class", "=1+1"))]), "a.json", CLASS)
    assert "several classes" in fault.fault
    several, none = Question("classes", CLASSES), answer_of("classes")
    rows = [row_of("a", answer_of("classes", "kettle", "=1+1")), row_of("b", none), row_of("c")]
    assert [each.value for each in answers(encord, json.dumps(rows), "a", several)] == [["=1+1", "kettle"], [], None]


def test_images_of_a_group_are_told_apart() -> None:
    row = row_of("a", answer_of("class", "kettle"), answer_of("class", "=1+1"))
    unit = row["data_units"]["u"]
    labels = [{"objects": [], "classifications": [entry]} for entry in unit["labels"]["classifications"]]
    row["data_units"] = {
        name: unit | {"data_title": name, "labels": each} for name, each in zip("xy", labels, strict=True)
    }
    back = answers(encord, json.dumps([row]), "a.json", CLASS)
    assert [(each.item, each.value, each.answer_id) for each in back] == [
        ("x", "kettle", "row/x"),
        ("y", "=1+1", "row/y"),
    ]


def test_shapes_are_in_pixels() -> None:
    points = [0.25, 0.5, 0.5, 0.5, 0.5, 1]
    polygon = {"name": "=1+1", "shape": "polygon", "polygon": {str(n): {"x": 0.1, "y": n / 10} for n in range(11)}}
    ring = {"name": "kettle", "shape": "polygon", "polygon": {}, "polygons": [[points]]}
    holed = {"name": "kettle", "shape": "polygon", "polygons": [[points, points]]}
    mask = {"name": "kettle", "shape": "bitmask", "bitmask": {"top": 0, "left": 0, "rleString": "a"}}
    row = row_of("a", objects=[boxed("kettle", 0.125, 0.25, 0.5, 0.0625), polygon, ring])
    (found,) = answers(encord, json.dumps([row]), "a.json", BOXES)
    assert isinstance(found.value, list)
    assert found.value[0] == {"label": "kettle", "box": [6.0, 8.0, 24.0, 2.0]}
    assert found.value[1]["polygon"][10] == [4.8, 32.0]  # type: ignore[index]
    assert found.value[2] == {"label": "kettle", "polygon": [[12.0, 16.0], [24.0, 16.0], [24.0, 32.0]]}
    assert json.loads(found.raw)[0]["boundingBox"]["x"] == 0.125
    assert "@" not in found.raw
    (masked,) = answers(encord, json.dumps([row_of("a", objects=[mask, holed])]), "a.json", MASK)
    assert [shape["mask"] for shape in masked.value or [] if isinstance(shape, dict)] == [
        mask["bitmask"],
        {"polygons": [[points, points]], "width": 48, "height": 32},
    ]
    turned = {"name": "kettle", "shape": "rotatable_bounding_box"}
    turned["rotatableBoundingBox"] = {"x": 0, "y": 0, "w": 0.5, "h": 0.5, "theta": 45}  # type: ignore[assignment]
    (rotated,) = answers(encord, json.dumps([row_of("a", objects=[turned])]), "a.json", BOXES)
    assert rotated.value == [{"label": "kettle", "box": [0.0, 0.0, 24.0, 16.0], "rotation": 45.0}]


def test_no_objects_are_an_answer_when_the_task_is_done() -> None:
    rows = [row_of("a"), row_of("b", label_status="LABELLED"), row_of("c", annotation_task_status="COMPLETED")]
    assert [answer.value for answer in answers(encord, json.dumps(rows), "a.json", BOXES)] == [None, [], []]


@pytest.mark.parametrize(
    ("objects", "why"),
    [
        ([{"name": "a", "shape": "skeleton"}], "a skeleton is no box"),
        ([{"shape": "bounding_box"}], "no 'name'"),
        ([boxed("a", 0, 0, -1, 1)], "-48"),
        ([{"name": "a", "shape": "polygon", "polygon": {}}], "less than three"),
    ],
)
def test_what_cannot_be_taken_is_a_fault_of_its_image(objects: Any, why: str) -> None:
    bad, good = answers(encord, json.dumps([row_of("a", objects=objects), row_of("b")]), "a.json", BOXES)
    assert (bad.item, bad.value, good.fault) == ("a", None, "")
    assert why in bad.fault
    (broken,) = answers(encord, json.dumps([row_of("a", classification_answers={"h": {}})]), "a.json", CLASS)
    assert "KeyError" in broken.fault


def test_other_files_are_refused() -> None:
    text = json.dumps([row_of("a", answer_of("class", "é")), row_of("b")], ensure_ascii=False)
    assert_no_cut_is_taken(encord, text, "a.json", CLASS)
    assert "no data_units" in refused(encord, '{"images": []}', "a.json", CLASS)
    assert "no data_units" in refused(encord, '[{"data_units": []}]', "a.json", CLASS)
    for content in ("3", '"a"', "[3]", text.encode("utf-16"), text.encode("latin-1"), text + "]", "[" * 200_000):
        refused(encord, content, "a.json", CLASS)
    assert answers(encord, "[]", "a.json", CLASS) == []


def test_a_file_of_any_length_is_streamed() -> None:
    file = endless_file("a.json", "[", lambda n: json.dumps(row_of(f"{n}", answer_of("class", "kettle"))) + ",")
    reading = encord.read_answers(file, CLASS)
    assert [next(reading).item for _ in range(2000)][-1] == "1999"


def test_its_files_are_known() -> None:
    assert encord.is_mine("a.json", json.dumps([row_of("a")]).encode())
    assert not encord.is_mine("a.json", b'{"images": [{"objectUrl": "a"}]}')
    assert not any(encord.is_mine(name, content) for name, content in written(encord, batch_of()).items())
