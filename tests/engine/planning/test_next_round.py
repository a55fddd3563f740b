"""The plan of a round: by hand where it is arithmetic, by what training plans, and it changes nothing."""

import json
import re
import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.campaign.folder import Campaign
from engine.campaign.opening import create, open_campaign
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.handoff.export import export
from engine.planning.next_round import plan_round
from engine.planning.trial import TRIAL_ITEMS, Trial, run_trial
from engine.pool.manifest import read_shards
from engine.report.report import report
from engine.selection.select import select
from engine.simulation.demo_pools import DemoPool
from engine.training.plan import plan_training
from jobs.cli import app
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores

TRIED = Trial(100, 1000.0, 0.36, 3.6, 0.0, 4_000_000, 32)
"""Round numbers, by which hours are easily counted."""


def no_trial(_: object) -> Trial:
    pytest.fail("a trial where rounds have measured")


def stages(plan: Any) -> dict[str, Any]:
    return {stage.stage: stage for stage in plan.stages}


def measured(campaign: Campaign, stage: str, **effort: float) -> None:
    file = campaign.stage(stage) / "manifest.json"
    manifest = json.loads(file.read_bytes())
    file.write_json({**manifest, "device": "cpu", "effort": effort})


def scored(campaign: Campaign) -> Campaign:
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.zeros(len(keys), np.float32))
    return campaign


def test_a_first_round_is_planned_by_a_trial(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("train.epochs=3", "handoff.price=0.05", "handoff.annotators=3")
    plan = plan_round(campaign, "cpu", lambda _: TRIED)
    found, training = stages(plan), plan_training(campaign)
    pool_bytes = sum(shard.size_bytes for shard in read_shards(campaign.home))
    assert (plan.round, plan.pool_items, plan.pool_bytes, plan.cost) == (0, 1797, pool_bytes, Decimal("15.00"))
    assert found["train"].steps == training.all_steps
    assert found["train"].hours == pytest.approx((training.all_steps * 3.6 + (1797 - 200) * 0.36) / 3600)
    assert (found["score"].items, found["score"].read_bytes) == (1797, pool_bytes)
    assert found["score"].hours == pytest.approx(1797 * 0.36 / 3600)
    assert found["score"].basis == "a trial of 100 images"
    assert found["score"].write_bytes == 1797 * (60 + 2 * 32)
    assert (found["export"].items, found["report"].items) == (100, 100)
    # A disk gets no requests.
    assert {stage.requests for stage in plan.stages} == {0}
    assert plan.hours == pytest.approx(found["train"].hours + found["score"].hours)


def test_an_object_store_gets_requests(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    config = override(campaign.config, {"pool.root": "s3://bucket/pool"}, "test")
    found = stages(plan_round(replace(campaign, config=config), "cpu", lambda _: TRIED))
    # A look and a block for each of the eight shards, which are small.
    assert found["score"].requests == 8 * 2
    assert found["export"].requests == 100


def test_the_next_round_is_planned_by_what_this_one_measured(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("train.epochs=3"))
    measured(campaign, "train", seconds=100.0, done=40, workers=2)
    measured(campaign, "scores", seconds=10.0, done=1797, workers=3)
    plan = plan_round(campaign, "cpu", no_trial)
    assert [stage.complete for stage in plan.stages] == [True, True, False, False, False]
    assert stages(plan)["score"].hours == 0
    select(campaign)
    export(campaign)
    report(campaign)
    plan = plan_round(campaign, "cpu", no_trial)
    found = stages(plan)
    assert plan.round == 1
    assert not any(stage.complete for stage in plan.stages)
    assert found["train"].hours == pytest.approx(found["train"].steps / 40 * 100 * 2 / 3600)
    assert found["score"].hours == pytest.approx(10 * 3 / 3600)
    assert found["train"].basis == found["score"].basis == "measured in round 000"
    # What a CPU measured says nothing of a GPU.
    assert stages(plan_round(campaign, "cuda", lambda _: TRIED))["score"].basis == "a trial of 100 images"


def test_what_is_scored_already_is_not_planned(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign())
    (campaign.stage("scores") / "manifest.json").delete()
    for name in list(campaign.stage("scores").children())[:2]:
        (campaign.stage("scores") / name).delete()
    found = stages(plan_round(campaign, "cpu", lambda _: TRIED))["score"]
    assert found.items == round(1797 * 2 / 8)


def test_a_round_without_labels_trains_nothing(pool: DemoPool, tmp_path: Path) -> None:
    config = override(CampaignConfig(), parse_settings([*pool.settings, "train.epochs=3"]), "test")
    home = str(create(str(tmp_path / "campaign"), pool.shards, "", config, lambda _: None).home)
    plan = plan_round(open_campaign(home, with_labels=True), "cpu", lambda _: TRIED)
    assert (plan.round, stages(plan)["train"].steps, plan.num_labels) == (0, 0, 0)


def test_a_budget_above_a_pool_that_nobody_counted_is_missing(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path
) -> None:
    lines = pool.labels.read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(line for n, line in enumerate(lines) if not n or "00000.tar" in line))
    campaign = make_campaign("select.budget=1790", labels=tmp_path / "few.csv")
    done = CliRunner().invoke(app, ["plan", str(campaign.home)])
    assert done.exit_code == 4, done.output
    assert "select.budget=1790 is more than the pool's images without a label, about 1,7" in done.stdout
    assert re.search(r"pool +about 1,\d{3} items", done.stdout)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("settings", "has_steps", "has_task"),
    [
        ({}, True, False),
        ({"train.task": "classification"}, True, True),
        ({"train.method": "vae_only"}, True, False),
        ({"train.method": "pixels"}, True, False),
        (
            {"score.acquisition": ["margin"], "select.acquisition": "margin", "train.task": "classification"},
            False,
            True,
        ),
    ],
)
def test_a_trial_times_the_networks_of_a_configuration(
    make_campaign: MakeCampaign, settings: dict[str, Any], has_steps: bool, has_task: bool
) -> None:
    campaign = make_campaign()
    config = override(campaign.config, {"image.size": 32, "train.batch_size": 16, **settings}, "test")
    trial = run_trial(config, read_shards(campaign.home)[0], "cpu")
    assert 200 < trial.items <= TRIAL_ITEMS
    assert trial.bytes_per_item > 500
    assert trial.seconds_per_item > 0
    assert (trial.seconds_per_step > 0, trial.seconds_per_task_step > 0) == (has_steps, has_task)
    assert (trial.weight_bytes > 0) == has_steps


@pytest.mark.heavy
def test_the_command_changes_nothing(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign("handoff.price=1")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = CliRunner().invoke(app, ["plan", str(campaign.home), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["round"], found["cost"], found["missing"]) == (0, 100.0, [])
    assert found["hours"] > 0
    assert list(found["stages"]) == ["train", "score", "select", "export", "report"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    shown = CliRunner().invoke(app, ["plan", str(campaign.home)]).stdout
    assert f"Round 000 of {campaign.home}: can start" in shown
    assert "CPU hours" in shown


def test_what_is_missing_is_said_with_status_4(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    shutil.copytree(Path(read_shards(make_campaign(name="first").home)[0].url).parent, tmp_path / "pool")
    campaign = make_campaign("handoff.price=1", "handoff.money_limit=50", shards=[f"{tmp_path}/pool/*.tar"])
    scored(campaign)
    measured(campaign, "train", seconds=1.0, done=1, workers=1)
    measured(campaign, "scores", seconds=1.0, done=1, workers=1)
    assert json.loads(CliRunner().invoke(app, ["plan", str(campaign.home), "--json"]).stdout)["missing"] == [
        "handoff.money_limit=50: 0.00 used, and the round costs 100.00; --set handoff.money_limit=100.0, or send "
        "fewer: vaal export --limit N"
    ]
    (tmp_path / "pool/digits-00003.tar").unlink()
    done = CliRunner().invoke(app, ["plan", str(campaign.home)])
    assert done.exit_code == 4
    assert "lacks 2 things" in done.stdout
    assert f"{tmp_path}/pool/digits-00003.tar: gone, and with it 1 shard of the pool; restore" in done.stdout


def test_a_broken_shard_is_one_line(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    shutil.copytree(Path(read_shards(make_campaign(name="first").home)[0].url).parent, tmp_path / "pool")
    campaign = make_campaign(shards=[f"{tmp_path}/pool/*.tar"])
    first = tmp_path / "pool/digits-00000.tar"
    first.write_bytes(first.read_bytes()[:2000])
    done = CliRunner().invoke(app, ["plan", str(campaign.home), "--json"])
    assert done.exit_code == 4
    assert "digits-00000.tar" in json.loads(done.stdout)["error"]
