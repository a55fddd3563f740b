"""The entry of the task learner in the train manifest, in words."""

from typing import Any

import pytest

from engine.models.task_words import MOST_CLASSES, task_facts, task_in_short

HELD_OUT = {"classes": ["cat", "dog"], "held_out_accuracy": 0.875, "held_out": 40}
CALIBRATED = {"temperature": 1.31, "calibrated_on": 40, "on_control_arm": False}
MASKS = {**HELD_OUT, "held_out_miou": 0.62}
OWN = {"classes": ["cat", "dog"], "weights_sha256": ["0"]}


def manifest(entry: dict[str, Any] | None, task: str = "classification", **counts: int) -> Any:
    config = {"train": {"task": task}, "task": {"model": "ours:net"}}
    return {"config": config, "counts": {"steps": 0, **counts}, **({"task": entry} if entry else {})}


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
            "not judged, because no labelled image is held out",
            "T: not judged",
        ),
        (OWN, "auto", "your own, ours:net; it was not judged here", "your own model"),
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
