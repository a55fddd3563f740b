"""V7 Darwin: requests of ten images out, Darwin JSON and tags back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.handoff.exchange import Answer, Question
from engine.handoff.vendors import v7
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
SCHEMA = "https://darwin-public.s3.eu-west-1.amazonaws.com/darwin_json/2.0/schema.json"
TRIANGLE = [{"x": 1, "y": 2}, {"x": 3, "y": 4.5}, {"x": 5, "y": 6}]


def darwin(name: str, *annotations: dict[str, Any], **source: Any) -> str:
    slots = [{"type": "image", "slot_name": "0", "width": 48, "height": 32, "source_files": []}]
    item = {"name": name, "path": "/", "source_info": source, "slots": slots}
    return json.dumps({"version": "2.0", "schema_ref": SCHEMA, "item": item, "annotations": list(annotations)})


def tag(name: str, *people: str) -> dict[str, Any]:
    annotators = [{"email": person, "full_name": "A. B."} for person in people]
    return {"id": f"tag-{name}", "name": name, "tag": {}, "annotators": annotators}


def read(text: str, question: Question = CLASS) -> Answer:
    (answer,) = answers(v7, text, "a.json", question)
    return answer


def test_ten_images_are_a_request() -> None:
    ids = [item_id(number) for number in range(23)]
    files = written(v7, batch_of(ids=ids))
    assert list(files) == ["register_items.jsonl", "classes.json"]
    requests = [json.loads(line) for line in files["register_items.jsonl"].decode().splitlines()]
    assert [len(request["items"]) for request in requests] == [10, 10, 3]
    assert {(request["dataset_slug"], request["storage_slug"]) for request in requests} == {
        ("vessels-r000-b000", "STORAGE_SLUG")
    }
    key = f"images/{ids[0]}.png"
    assert requests[0]["items"][0] == {"path": "/", "type": "image", "storage_key": key, "name": f"{ids[0]}.png"}
    assert [item["name"] for request in requests for item in request["items"]] == [f"{name}.png" for name in ids]
    for task, kind in (("classes", "tag"), ("boxes", "bounding_box"), ("mask", "mask")):
        classes = json.loads(written(v7, batch_of(task))["classes.json"])  # type: ignore[arg-type]
        assert [(entry["name"], entry["annotation_types"]) for entry in classes] == [(name, [kind]) for name in CLASSES]


@pytest.mark.parametrize(
    ("base", "storage", "folder"),
    [("s3://bucket/a b/", "bucket", "a b/"), ("gs://b/", "b", ""), ("https://b.s3.org/a%20b/", "STORAGE_SLUG", "a b/")],
)
def test_links_are_keys_of_a_storage(base: str, storage: str, folder: str) -> None:
    request = json.loads(written(v7, batch_of(base=base))["register_items.jsonl"].splitlines()[0])
    assert (request["storage_slug"], request["items"][0]["storage_key"]) == (storage, f"{folder}{item_id(0)}.png")


@given(item_ids, class_names, st.data())
def test_what_annotators_say_comes_back(ids: list[str], classes: list[str], data: st.DataObject) -> None:
    files = written(v7, batch_of("classes", ids, classes))
    names = [entry["name"] for entry in json.loads(files["classes.json"])]
    requests = [json.loads(line) for line in files["register_items.jsonl"].decode().splitlines()]
    for name, item in zip(ids, (item for request in requests for item in request["items"]), strict=True):
        said, person = data.draw(st.sets(st.sampled_from(names))), data.draw(people)
        text = darwin(item["name"], *(tag(one, person) for one in said), item_id="7")
        back = read(text, Question("classes", classes))
        assert (back.item, back.value, back.answer_id) == (f"{name}.png", sorted(said) or None, "7")
        assert back.annotator == (person if said else "")
        assert not back.fault


def test_one_person_is_named_and_several_are_all_of_them() -> None:
    one = read(darwin("a.png", tag("kettle", "a@x.org"), item_id="i", new=1))
    assert (one.value, one.annotator, one.answer_id, one.skipped) == ("kettle", "a@x.org", "i", False)
    two = read(darwin("a.png", tag("kettle", "a@x.org", "b@x.org")))
    assert (two.value, two.annotator, two.answer_id) == ("kettle", "", "tag-kettle")
    assert read(darwin("a.png")).value is None
    assert read(darwin("a.png", tag("kettle"), tag("kettle"))).value == "kettle"
    several = read(darwin("a.png", tag("kettle"), tag("=1+1")))
    assert several.fault == "several classes, '=1+1', 'kettle'; leave one"


def test_shapes_are_in_pixels() -> None:
    box = {"id": "1", "name": "kettle", "bounding_box": {"x": 1, "y": 2.5, "w": 3, "h": 4}}
    polygon = {"id": "2", "name": "=1+1", "polygon": {"paths": [TRIANGLE]}, "annotators": [{"email": "a@x.org"}]}
    found = read(darwin("a.png", tag("kettle"), box, polygon, item_id="i"), BOXES)
    triangle = [[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]]
    assert found.value == [{"label": "kettle", "box": [1.0, 2.5, 3.0, 4.0]}, {"label": "=1+1", "polygon": triangle}]
    assert (found.answer_id, found.annotator, "@" in found.raw) == ("i", "a@x.org", False)
    assert json.loads(found.raw)[0] == box
    both = polygon | {"bounding_box": box["bounding_box"]}
    assert read(darwin("a.png", both), BOXES).value == [{"label": "=1+1", "box": [1.0, 2.5, 3.0, 4.0]}]
    assert read(darwin("a.png", both), MASK).value == [{"label": "=1+1", "polygon": triangle}]
    holed = {"id": "3", "name": "kettle", "polygon": {"paths": [TRIANGLE, TRIANGLE]}}
    assert read(darwin("a.png", holed), MASK).value == [{"label": "kettle", "mask": {"paths": [TRIANGLE, TRIANGLE]}}]
    assert read(darwin("a.png", tag("kettle")), BOXES).value is None


def test_masks_are_taken_from_the_raster_layer() -> None:
    masks = [{"id": name, "name": "kettle", "mask": {}} for name in ("m", "n")]
    layer = {"dense_rle": [0, 5, 1, 2, 2, 3, 1, 1], "mask_annotation_ids_mapping": {"m": 1, "n": 2}, "total_pixels": 11}
    raster = {"id": "r", "name": "__raster_layer__", "raster_layer": layer}
    runs = [shape["mask"]["dense_rle"] for shape in read(darwin("a.png", *masks, raster), MASK).value or []]  # type: ignore[index]
    assert runs == [[0, 5, 1, 2, 0, 3, 1, 1], [0, 5, 0, 2, 1, 3, 0, 1]]
    assert "mask m is in no raster layer" in read(darwin("a.png", masks[0]), MASK).fault


@pytest.mark.parametrize(
    ("annotation", "question", "why"),
    [
        ({"tag": {}}, CLASS, "'name'"),
        ({"name": " ", "tag": {}}, CLASS, "'' is no class"),
        ({"name": "a", "ellipse": {}}, BOXES, "no bounding box"),
        ({"name": "a", "bounding_box": {"x": 1}}, BOXES, "no 'y'"),
        ({"name": "a", "bounding_box": {"x": 1, "y": 1, "w": 1, "h": 1}}, MASK, "a box, where masks"),
        (3, CLASS, "is not as V7 writes it"),
    ],
)
def test_what_cannot_be_taken_is_a_fault(annotation: Any, question: Question, why: str) -> None:
    bad = read(darwin("a.png", annotation), question)
    assert (bad.item, bad.value) == ("a.png", None)
    assert why in bad.fault


def test_a_csv_holds_paths_and_tags() -> None:
    text = '/a/x.png,kettle\n"/a/y, z.png","tea ""pot"", <big>"\r\n\n/b.png\n/c.png,kettle,=1+1'
    first, second, third, fourth = answers(v7, text, "tags.csv", CLASS)
    assert (first.item, first.value, first.where) == ("/a/x.png", "kettle", "line 1")
    assert (second.item, second.value) == ("/a/y, z.png", CLASSES[1])
    assert (third.value, third.skipped, third.fault) == (None, False, "")
    assert "several classes" in fourth.fault
    several = answers(v7, text, "tags.csv", Question("classes", CLASSES))
    assert several[-1].value == ["=1+1", "kettle"]
    assert "ends within '=1+'" in refused(v7, text[:-1], "tags.csv", CLASS)
    assert "boxes are asked for" in refused(v7, text, "tags.csv", BOXES)
    for content in (text.encode("utf-16"), b"/a.png,\xff\n", '/a.png,"kettle'):
        refused(v7, content, "tags.csv", CLASS)
    reading = v7.read_answers(endless_file("tags.csv", "", lambda n: f"/{n}.png,kettle\n"), CLASS)
    assert [next(reading).item for _ in range(2000)][-1] == "/1999.png"


def test_other_files_are_refused() -> None:
    assert_no_cut_is_taken(v7, darwin("a.png", tag("é")), "a.json", CLASS)
    old = '{"dataset": "d", "image": {"filename": "a.png"}, "annotations": []}'
    for content in (old, "[]", "3", '{"item": {"name": ""}, "annotations": []}', "[" * 200_000):
        assert "export" in refused(v7, content, "a.json", CLASS)


def test_its_files_are_known() -> None:
    assert v7.is_mine("a/b.json", darwin("a.png").encode())
    assert v7.is_mine("tags.csv", b"/r0007/a.png,kettle\n")
    assert not v7.is_mine("tasks.csv", b"item_id,file\n/a,images/a.png\n")
    assert not any(v7.is_mine(name, content) for name, content in written(v7, batch_of()).items())
