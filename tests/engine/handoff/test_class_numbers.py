"""A class that a file gives by its place is that of the batch that the image was in, whatever the question is now."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.config.toml import override
from engine.errors import InputError
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in

SHARD = "digits-00001.tar"


def sent(campaign: Campaign, number: int, classes: list[str], *keys: str, vendor: str = "ground-truth") -> None:
    question = {"task": campaign.config.handoff.question.task, "classes": classes, "instructions": "", "is_open": False}
    hand_out(campaign, {f"id-{key}": (SHARD, key) for key in keys}, number=number, vendor=vendor, question=question)


def manifest(folder: Path, answers: dict[str, Any], kind: str = "image-classification") -> Path:
    meta = {"type": f"groundtruth/{kind}", "job-name": "j", "creation-date": "2026-11-26T10:00:00"}
    rows = [
        {"source-ref": "s3://b/x", "item-id": f"id-{key}", "x": said, "x-metadata": meta}
        for key, said in answers.items()
    ]
    (folder / "output.manifest").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "output.manifest"


def asking(campaign: Campaign, *classes: str) -> Campaign:
    return replace(campaign, config=override(campaign.config, {"handoff.question.classes": list(classes)}, "test"))


def test_a_place_is_looked_up_among_the_classes_that_were_sent(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    sent(campaign, 0, ["cat", "dog"], "k1", "k2")
    sent(campaign, 1, ["ant", "cat", "dog"], "k3")
    # Of another vendor's batch nothing is said where this vendor has one of its own.
    sent(campaign, 2, ["x", "y", "z"], "k1", vendor="generic")
    take_in(
        asking(campaign, "bee", "ant", "cat", "dog"), manifest(tmp_path, {"k1": 0, "k2": "1", "k3": 0}), "ground-truth"
    )
    assert {key: labelled_values(campaign.home)[SHARD, key] for key in ("k1", "k2", "k3")} == {
        "k1": "cat", "k2": "dog", "k3": "ant",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "message"),
    [(0, "class 0 is 'ant' and 'cat' in batches of this image; give the name"), (9, "class 9 is none that was sent")],
)
def test_a_place_that_says_nothing_is_refused(
    make_campaign: MakeCampaign, tmp_path: Path, said: int, message: str
) -> None:
    campaign = make_campaign()
    sent(campaign, 0, ["cat", "dog"], "k1")
    sent(campaign, 1, ["ant", "dog", "cow"], "k1")
    with pytest.raises(InputError, match=message):
        take_in(campaign, manifest(tmp_path, {"k1": said}), "ground-truth")
    # What is the same in both, or there in one alone, is no question.
    take_in(campaign, manifest(tmp_path, {"k1": 2}), "ground-truth")
    assert labelled_values(campaign.home)[SHARD, "k1"] == "cow"


def test_places_in_several_classes_and_in_boxes(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    tags = make_campaign("handoff.question.task=classes", name="tags")
    sent(tags, 0, ["cat", "dog"], "k1")
    file = manifest(tmp_path, {"k1": [1, 0]}, "image-classification-multilabel")
    take_in(asking(tags, "ant", "cat", "dog"), file, "ground-truth")
    assert labelled_values(tags.home)[SHARD, "k1"] == '["cat", "dog"]'
    boxes = make_campaign("handoff.question.task=boxes", name="boxes")
    sent(boxes, 0, ["cat", "dog"], "k1")
    box = {"class_id": 1, "left": 1, "top": 2, "width": 3, "height": 4}
    take_in(
        asking(boxes, "ant", "dog"),
        manifest(tmp_path, {"k1": {"annotations": [box]}}, "object-detection"),
        "ground-truth",
    )
    assert json.loads(labelled_values(boxes.home)[SHARD, "k1"]) == [{"label": "dog", "box": [1, 2, 3, 4]}]
