"""`vaal train` and `vaal status` say how good the task learner is, and nothing of what was not trained or not asked."""

import json
import re
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from engine.campaign.folder import Campaign
from engine.models.diagnosis import not_trained
from jobs.cli import app
from tests.conftest import MakeCampaign, pretend_trained

pytestmark = pytest.mark.heavy
TASK = {"classes": ["0", "1"], "held_out_accuracy": 0.875, "held_out": 40}


def vaal(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def with_task(campaign: Campaign, **changes: Any) -> None:
    """The train stage as of a round that trained a task learner."""
    file = campaign.stage("train") / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["counts"]["task_steps"] = 150
    file.write_json(manifest | {"task": TASK} | changes)


def test_where_another_score_ranks_status_shows_the_task_learner_and_not_vaals_signal(
    make_campaign: MakeCampaign,
) -> None:
    campaign = make_campaign("train.task=classification", "score.acquisition=['vaal','margin']")
    home = str(campaign.home)
    pretend_trained(campaign)
    with_task(campaign)
    assert "T: 88% right" in (by_vaal := vaal("status", home).stdout)
    assert "AUC 0.93" in by_vaal
    right = r"right on 88% \(74 to 95\) of 40 held-out images\n"
    assert re.search(rf"training, round 000 +task learner \(T\): {right}", by_vaal)
    assert re.search(r"\n +VAAL: signal present: AUC 0.93 \(0.88 to 0.97\), lift 6.3 \(2.5 to 16\) among", by_vaal)
    # What stands together in the table is not broken.
    assert re.search(r"│ 40 steps +│", by_vaal)
    trained = vaal("train", home, "--set", "select.acquisition=margin")
    assert trained.exit_code == 0
    assert "Round 000: trained before, nothing was done" in trained.stdout
    assert re.search(r"verdict +signal present: .*; it does not matter here, because margin ranks", trained.stdout)
    by_margin = vaal("status", home).stdout
    assert "T: 88% right" in by_margin
    assert "40 steps" in by_margin
    for wrong in ("signal", "AUC", "lift"):
        assert wrong not in by_margin
    train = json.loads(vaal("status", home, "--json").stdout)["rounds"][0]
    assert (train["ranks"], train["stages"]["train"]["task"]) == ("margin", TASK)


def test_training_says_how_good_the_task_learner_is_and_nothing_of_a_vaal_that_was_not_trained(
    make_campaign: MakeCampaign,
) -> None:
    campaign = make_campaign("train.task=classification", "score.acquisition=['entropy']", "select.acquisition=entropy")
    pretend_trained(campaign)
    file = campaign.stage("train") / "manifest.json"
    with_task(campaign, **not_trained(), losses={}, counts={"steps": 0, "task_steps": 150})
    output = vaal("train", str(campaign.home)).stdout
    assert "right on 88% (74 to 95) of 40 held-out images" in output
    assert re.search(r"its steps +150", output)
    assert output.count("VAAL was not trained") == 1
    for wrong in ("\n  steps", "losses", "finding"):
        assert wrong not in output
    assert "T: 88% right" in (shown := vaal("status", str(campaign.home)).stdout)
    assert "VAAL was not trained" not in shown
    manifest = json.loads(file.read_bytes())
    del manifest["task"]
    file.write_json(manifest)
    assert "VAAL was not" in vaal("status", str(campaign.home)).stdout
