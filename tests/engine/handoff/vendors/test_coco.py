"""COCO: images and categories out, annotations back, whatever the order of the lists."""

import json
import random
import tracemalloc
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.handoff.exchange import Question
from engine.handoff.vendors import coco
from tests.vendor_files import (
    CLASSES,
    answer_file,
    answers,
    assert_no_cut_is_taken,
    batch_of,
    class_names,
    item_id,
    item_ids,
    refused,
    written,
)

CLASS, BOXES, MASK = Question("class", CLASSES), Question("boxes", CLASSES), Question("mask", CLASSES)
SQUARE = [3, 2, 23, 2, 23, 20, 3, 20]


def instances(annotations: list[dict[str, Any]], **other: Any) -> str:
    images = [{"id": 1, "file_name": "a.png", "width": 48, "height": 32}, {"id": "x", "file_name": "images/b.png"}]
    categories = [{"id": 1, "name": "kettle", "supercategory": ""}, {"id": 2, "name": "=1+1"}]
    numbered = [{"id": number, **entry} for number, entry in enumerate(annotations)]
    return json.dumps({"images": images, "categories": categories, "annotations": numbered, "licenses": [], **other})


def test_the_file_holds_images_and_categories() -> None:
    files = written(coco, batch_of(base="https://x.org/"))
    assert list(files) == ["instances.json"]
    parts = json.loads(files["instances.json"])
    assert list(parts) == ["info", "licenses", "categories", "images", "annotations"]
    assert parts["info"] == {"description": "Vessels-r000-b000", "instructions": "Look at the handle."}
    assert parts["categories"][0] == {"id": 1, "name": "kettle", "supercategory": ""}
    name = item_id(0)
    link = {"coco_url": f"https://x.org/{name}.png"}
    first = {"id": 1, "file_name": f"images/{name}.png", "width": 48, "height": 32, "item_id": name}
    assert parts["images"][0] == first | link
    assert json.loads(written(coco, batch_of())["instances.json"])["images"][0] == first
    assert (parts["licenses"], parts["annotations"]) == ([], [])


@given(item_ids, class_names, st.data())
def test_what_annotators_say_comes_back(ids: list[str], classes: list[str], data: st.DataObject) -> None:
    """Annotations in any order, ids as numbers or text, lists in any order, images by name alone."""
    parts = json.loads(written(coco, batch_of("classes", ids, classes))["instances.json"])
    said = {
        image["id"]: data.draw(st.sets(st.sampled_from(parts["categories"]).map(lambda c: c["id"])))
        for image in parts["images"]
    }
    pairs = [{"image_id": id_, "category_id": category} for id_, own in said.items() for category in own]
    parts["annotations"] = data.draw(st.permutations(pairs))
    write = data.draw(st.sampled_from([int, str, float]))
    for entry in parts["images"]:
        entry["id"] = write(entry["id"])
        del entry["item_id"]
    text = json.dumps({name: parts[name] for name in data.draw(st.permutations(list(parts)))})
    back = answers(coco, text, "a.json", Question("classes", classes))
    assert [answer.item for answer in back] == [f"images/{name}.png" for name in ids]
    names = {category["id"]: category["name"] for category in parts["categories"]}
    assert [answer.value for answer in back] == [sorted(names[one] for one in own) or None for own in said.values()]
    assert not any(answer.annotator or answer.fault or answer.skipped for answer in back)


def test_image_labels_and_shapes_are_classes() -> None:
    boxed = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "segmentation": [], "iscrowd": 0}
    both = [{"image_id": "x", "category_id": "2"}, boxed, boxed]
    assert [answer.value for answer in answers(coco, instances(both), "a.json", CLASS)] == ["kettle", "=1+1"]
    assert [answer.value for answer in answers(coco, instances([]), "a.json", CLASS)] == [None, None]
    (fault, _) = answers(coco, instances([boxed, {"image_id": 1, "category_id": 2}]), "a.json", CLASS)
    assert fault.fault == "several classes, '=1+1', 'kettle'; leave one"


def test_shapes_are_in_pixels_or_the_vendors_own() -> None:
    runs = {"size": [32, 48], "counts": "`1000"}
    boxed = {"image_id": 1, "category_id": 1, "bbox": [3, 2, 20.5, 18], "segmentation": [SQUARE], "iscrowd": 0}
    drawn = {"image_id": 1, "category_id": 2, "segmentation": [SQUARE]}
    first, second = answers(coco, instances([boxed, drawn]), "a.json", BOXES)
    polygon = [[3.0, 2.0], [23.0, 2.0], [23.0, 20.0], [3.0, 20.0]]
    assert first.value == [{"label": "kettle", "box": [3.0, 2.0, 20.5, 18.0]}, {"label": "=1+1", "polygon": polygon}]
    assert json.loads(first.raw) == [{"id": 0, **boxed}, {"id": 1, **drawn}]
    assert (second.value, second.raw) == (None, "")
    parts = {"image_id": "x", "category_id": 1, "segmentation": [SQUARE, SQUARE]}
    masked = {"image_id": "x", "category_id": 1, "segmentation": runs, "bbox": [0, 0, 1, 1]}
    first, second = answers(coco, instances([boxed, parts, masked]), "a.json", MASK)
    assert first.value == [{"label": "kettle", "polygon": polygon}]
    assert second.value == [{"label": "kettle", "mask": [SQUARE, SQUARE]}, {"label": "kettle", "mask": runs}]


@pytest.mark.parametrize(
    ("annotation", "question", "why"),
    [
        ({"category_id": 9}, CLASS, "category_id 9 is not among the categories"),
        ({"caption": "a kettle"}, CLASS, "category_id None"),
        ({"category_id": 1}, BOXES, "without bbox"),
        ({"category_id": 1, "bbox": [0, 0, 1, 1]}, MASK, "without segmentation"),
        ({"category_id": 1, "bbox": [0, 0, 1]}, BOXES, "argument"),
        ({"category_id": 1, "segmentation": [[1, 2, 3]]}, MASK, "shorter"),
    ],
)
def test_what_cannot_be_taken_is_a_fault_of_its_image(annotation: Any, question: Question, why: str) -> None:
    bad, good = answers(coco, instances([{"image_id": 1, **annotation}]), "a.json", question)
    assert (bad.item, bad.value, bad.where, good.fault) == ("a.png", None, "image 1", "")
    assert why in bad.fault


def test_annotations_without_an_image_and_images_with_one_id_are_faults() -> None:
    *_, lost = answers(coco, instances([{"image_id": 7, "category_id": 1}]), "a.json", CLASS)
    assert lost.fault == "image_id 7 is not among the images; add that image"
    twice = [{"id": 1, "file_name": "a.png"}, {"id": "1", "file_name": "b.png"}, {"id": 2}]
    _, second, nameless = answers(coco, instances([], images=twice), "a.json", CLASS)
    assert "'1', which an image before it has" in second.fault
    assert "neither file_name nor item_id" in nameless.fault
    names = [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]
    assert "two categories have the id 1" in refused(coco, instances([], categories=names), "a.json", CLASS)


def test_other_files_are_refused() -> None:
    text = instances([{"image_id": 1, "category_id": 1}], new={"é": [1]})
    assert_no_cut_is_taken(coco, text, "a.json", CLASS)
    assert "a list" in refused(coco, '[{"image_id": 1, "category_id": 1, "score": 1}]', "a.json", CLASS)
    assert "no images" in refused(coco, '{"item": 1}', "a.json", CLASS)
    assert "is no object" in refused(coco, instances([], images=["a.png"]), "a.json", CLASS)
    assert "nested too deeply" in refused(coco, '{"a":' + "[" * 200_000, "a.json", CLASS)
    for content in (b"", text.encode("utf-16"), text.encode() + b"\xff", b"<xml/>", text.encode() * 2):
        refused(coco, content, "a.json", CLASS)
    with_mark = b"\xef\xbb\xbf" + text.encode()
    assert answers(coco, with_mark, "a.json", CLASS)[0].value == "kettle"


def test_its_files_are_known_whatever_the_order() -> None:
    parts = json.loads(instances([{"image_id": 1, "category_id": 1}] * 2))
    for names in permutations(("images", "categories", "annotations")):
        long = {name: parts[name] * (1 if name == names[-1] else 3000) for name in names}
        assert coco.is_mine("a/b.json", json.dumps(long).encode()[: 1 << 16])
    for other in ('{"images": [{"objectUrl": "a"}]}', '[{"image_id": 1, "category_id": 1}]', '{"item": {"slots": []}}'):
        assert not coco.is_mine("a.json", other.encode())
    assert not coco.is_mine("a.txt", instances([]).encode())


def test_the_order_of_annotations_does_not_matter() -> None:
    pairs = [{"image_id": number, "category_id": 1 + number % 2} for number in range(500)]
    random.Random(0).shuffle(pairs)
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(500)]
    back = answers(coco, instances(pairs, images=images), "a.json", CLASS)
    assert [answer.value for answer in back] == ["kettle", "=1+1"] * 250


def peak_of(number_of_images: int) -> int:
    """Bytes that reading takes at most, the file apart."""
    pairs = [{"image_id": number, "category_id": 1} for number in range(number_of_images)]
    images = [{"id": number, "file_name": f"{number}.png"} for number in reversed(range(number_of_images))]
    file = answer_file(instances(pairs, images=images), "a.json")
    tracemalloc.start()
    try:
        assert sum(answer.value == "kettle" for answer in coco.read_answers(file, CLASS)) == number_of_images
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.heavy
def test_a_long_file_takes_no_more_memory() -> None:
    peak_of(10)
    assert peak_of(12_000) < 1.5 * peak_of(4_000)
