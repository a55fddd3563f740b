"""The entry of the task learner in the train manifest, in words."""

from typing import Any

import pytest

from engine.models.task_words import CHECK, MOST_CLASSES, task_facts, task_in_short

HELD_OUT = {"classes": ["cat", "dog"], "held_out_accuracy": 0.875, "held_out": 40}
CALIBRATED = {"temperature": 1.31, "calibrated_on": 40, "on_control_arm": False}
MASKS = {**HELD_OUT, "held_out_miou": 0.62}
OWN = {"classes": ["cat", "dog"], "weights_sha256": ["0"]}
JUDGED = {
    **OWN,
    "labelled": 120,
    "labelled_accuracy": 0.87,
    "labelled_interval": [0.80, 0.92],
    "most_frequent": {"class": "cat", "share": 0.6},
}


def manifest(entry: dict[str, Any] | None, task: str = "classification", **counts: int) -> Any:
    config = {"train": {"task": task}, "task": {"model": "ours:net"}}
    return {"config": config, "counts": {"steps": 0, "labelled": 4, **counts}, **({"task": entry} if entry else {})}


@pytest.mark.parametrize(
    ("entry", "task", "long", "short"),
    [
        (HELD_OUT, "classification", "right on 88% (74 to 95) of 40 held-out images", "T: 88% right"),
        (HELD_OUT, "labels", "right on 88% of the labels of 40 held-out images", "T: 88% right"),
        (
            MASKS,
            "segmentation",
            "mIoU 0.62 on 40 held-out images, right on 88% of their pixels",
            "T: mIoU 0.62",
        ),
        # A linear head on embeddings is judged by cross-validation.
        (
            {"classes": [], "held_out_accuracy": 0.875},
            "auto",
            "right on 88% of held-out images",
            "T: 88% right",
        ),
        (
            {**HELD_OUT, "held_out_accuracy": None, "held_out": 0},
            "classification",
            "not judged, because none of 4 labelled images is held out: 5 or more are needed, in as many groups "
            "(pool.group)",
            "T: not judged",
        ),
        (
            {"classes": [], "held_out_accuracy": None},
            "auto",
            "not judged: cross-validation needs two labelled images or more of each class",
            "T: not judged",
        ),
        (
            {"classes": [], "held_out_accuracy": None},
            "labels",
            "not judged: cross-validation needs 3 labelled images or more",
            "T: not judged",
        ),
        (OWN, "auto", "your own, ours:net; it was not judged here", "your own model"),
        (
            {**OWN, "not_judged": "no mask can be used, as x"},
            "segmentation",
            "your own, ours:net; it was not judged here: no mask can be used, as x",
            "your own model",
        ),
        (
            JUDGED,
            "auto",
            "your own, ours:net; right on 87% (80% to 92%) of 120 labelled images",
            "your own model: 87% right",
        ),
        (
            JUDGED,
            "labels",
            "your own, ours:net; its likeliest class is one of the image's in 87% (80% to 92%) of 120 labelled images",
            "your own model: 87% right",
        ),
        (
            {**JUDGED, "labelled_miou": 0.62},
            "segmentation",
            "your own, ours:net; mIoU 0.62 on 120 labelled images, right on 87% (80% to 92%) of their pixels",
            "your own model: 87% right, mIoU 0.62",
        ),
    ],
)
def test_how_good_it_is(entry: dict[str, Any], task: str, long: str, short: str) -> None:
    assert task_facts(manifest(entry, task))["task learner (T)"] == long
    assert task_in_short(entry) == short


def test_what_it_is_and_only_what_is_known() -> None:
    assert task_facts(manifest(None)) == {}
    assert task_facts(manifest({**HELD_OUT, **CALIBRATED}, task_steps=1500)) == {
        "task learner (T)": "right on 88% (74 to 95) of 40 held-out images",
        "its classes": "2 (cat, dog)",
        "its steps": 1500,
        "its temperature": "1.31, fitted to 40 held-out labels",
    }
    assert set(task_facts(manifest(OWN))) == {"task learner (T)", "its classes"}
    many = task_facts(manifest({**HELD_OUT, "classes": [str(n) for n in range(1000)]}))["its classes"]
    assert many.startswith("1,000 (0, 1, ")
    assert many.endswith(f", {MOST_CLASSES - 1}, …)")
    by_controls = {**HELD_OUT, **CALIBRATED, "on_control_arm": True}
    assert task_facts(manifest(by_controls))["its temperature"] == "1.31, fitted to 40 labels of control arms, held out"


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({}, ""),
        (
            {"labelled_accuracy": 0.55, "labelled_interval": [0.46, 0.64]},
            "T is no better than always answering 'cat' (60%) on the labelled images; likely causes: task.classes in "
            "another order, another task.mean, task.std, task.size or task.order, or weights of another task; "
            "to set these in this round, delete the manifest.json of its train folder first",
        ),
        (
            {"labelled_accuracy": 0.65, "labelled_interval": [0.56, 0.74]},
            "the labelled images are too few to show that T is better than always answering 'cat' (60%)",
        ),
        (
            {"other_order": ["dog", "cat"]},
            """its classes seem to be in another order: --set 'task.classes=["dog","cat"]'; """
            "to set these in this round, delete the manifest.json of its train folder first",
        ),
        # Where the labels have one class, nothing can be told.
        ({"labelled_accuracy": 0.9, "most_frequent": {"class": "cat", "share": 1.0}}, ""),
    ],
)
def test_a_doubt_about_ones_own_names_the_causes(change: dict[str, Any], doubt: str) -> None:
    entry = {**JUDGED, **change}
    assert task_facts(manifest(entry)).get("check T", "") == doubt
    is_wrong = "no better" in doubt or "order" in doubt
    assert task_in_short(entry).endswith(CHECK) == is_wrong
