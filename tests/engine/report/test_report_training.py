"""The report says how good the task learner is, which scores there are, and nothing that has no content."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.freshness import content_of
from engine.campaign.manifests import ScoresManifest, read_manifest
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.report.facts import read_manifests, round_facts
from engine.report.report import report
from tests.rounds import Made, make_round, without_report

pytestmark = pytest.mark.heavy
TASK = {"classes": ["0", "1"], "held_out_accuracy": 0.875, "held_out": 40}
OWN = {"classes": ["0", "1"], "weights_sha256": ["0"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_round(tmp_path_factory.mktemp("training"))


@pytest.fixture
def campaign(made: Made, tmp_path: Path) -> Campaign:
    return without_report(made.campaign, tmp_path / "campaign")


def changed(campaign: Campaign, stage: str, **changes: Any) -> None:
    file = campaign.stage(stage) / "manifest.json"
    file.write_json(json.loads(file.read_bytes()) | changes)


def without_losses(campaign: Campaign) -> None:
    """The train stage as of a round in which nothing was trained here."""
    folder = campaign.stage("train")
    steps = (folder / "metrics.parquet").read_table().select(["step"]).slice(0, 0)
    files = json.loads((folder / "manifest.json").read_bytes())["files"]
    changed(campaign, "train", files=files | {"metrics.parquet": (folder / "metrics.parquet").write_table(steps)})


def page(campaign: Campaign) -> str:
    report(campaign)
    text = (campaign.stage("report") / "report.html").read_bytes().decode()
    return re.sub(r"\s+", " ", text)


def test_the_task_learner_is_told_beside_the_losses(campaign: Campaign) -> None:
    changed(campaign, "train", task=TASK, counts={"steps": 0, "task_steps": 150})
    text = page(campaign)
    assert '<th scope="row">task learner (T)</th><td>right on 88% (74 to 95) of 40 held-out images</td>' in text
    assert '<th scope="row">its steps</th><td>150</td>' in text
    assert "training steps" not in text
    assert "Thick: their moving average" in text


def test_where_nothing_was_trained_the_page_says_nothing_of_losses(campaign: Campaign, tmp_path: Path) -> None:
    without_losses(campaign)
    other = without_report(campaign, tmp_path / "other")
    changed(campaign, "train", task=OWN)
    text = page(campaign)
    assert "<h2>Training</h2>" in text
    assert "it was not judged here" in text
    assert "Losses against the training step" not in text
    assert "<h2>Training</h2>" not in page(other)


def test_all_scores_that_were_asked_for_are_named(campaign: Campaign) -> None:
    assert "Also computed" not in page(campaign)
    (campaign.stage("report") / "manifest.json").delete()
    options = campaign.home / "campaign.toml"
    text = options.read_bytes().decode()
    assert 'acquisition = ["vaal"]' in text
    options.write_bytes(text.replace('acquisition = ["vaal"]', 'acquisition = ["vaal", "confused", "random"]').encode())
    config = json.loads((campaign.stage("scores") / "manifest.json").read_bytes())["config"]
    config["score"]["acquisition"] = ["vaal", "confused", "random"]
    changed(campaign, "scores", config=config)
    # The selection is of these scores.
    scores = content_of(read_manifest(campaign, "scores", ScoresManifest))
    inputs = json.loads((campaign.stage("selection") / "manifest.json").read_bytes())["inputs"]
    changed(campaign, "selection", inputs=inputs | {"scores": scores})
    assert "Also computed, and not what decided: confused, random." in page(campaign)


def test_settings_of_the_task_learner_are_shown_where_there_are_some(made: Made) -> None:
    manifests = read_manifests(made.campaign)
    labels = (made.campaign.home / "labels/initial.parquet").read_table()
    assert "Settings: task" not in round_facts(CampaignConfig(), manifests, labels, 0)
    settings = {
        "task.model": "ours:net",
        "task.weights": ["a", "b"],
        "task.arguments": {"name": "net"},
        "task.size": 64,
    }
    found = round_facts(override(CampaignConfig(), settings, "test"), manifests, labels, 0)
    assert {name: found["Settings: task"][name] for name in ("model", "weights", "arguments", "size", "classes")} == {
        "model": "ours:net (default none)",
        "weights": "a, b (default none)",
        "arguments": "name=net (default none)",
        "size": "64 (default 0)",
        "classes": "none",
    }
    assert found["Settings: train"]["refit"] == "yes"
