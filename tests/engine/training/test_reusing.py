"""The networks of the round before are used again only where training would make the same ones."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from engine.campaign.folder import Campaign
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.models import task_trial
from engine.models.encoders import load_encoder
from engine.training.reusing import reused
from tests import encoders, tasks
from tests.conftest import MakeCampaign, pretend_trained

OWN = (
    *("image.channels=3", "task.model=tests.tasks:Plain", "task.arguments={num_classes=7}"),
    "task.classes=['0','1','2','3','4','5','6']",
)


def again(campaign: Campaign, *settings: str) -> tuple[bool, list[str]]:
    """Whether the next round uses the networks of a trained round, with further settings; and what is logged."""
    lines: list[str] = []
    inputs = read_manifest(campaign, "train", TrainManifest)["inputs"]
    config: CampaignConfig = override(campaign.config, parse_settings(settings), "test")
    return reused(replace(campaign, round=1, config=config), inputs, lines.append) is not None, lines


def rewrite(campaign: Campaign, **fields: Any) -> None:
    manifest = read_manifest(campaign, "train", TrainManifest)
    (campaign.stage("train") / "manifest.json").write_json({**manifest, **fields})


@pytest.mark.parametrize(
    ("settings", "is_used"),
    [
        ((), True),
        (("handoff.price=2", "labels.close_when=0.5", "select.diversity=none", "train.trackers=['tensorboard']"), True),
        (("train.seed=1",), False),
        (("score.acquisition=['vaal','random']",), False),
        (("labels.classes=['0','1']",), False),
        # There are twice as many clusters as picks.
        (("select.budget=99",), False),
    ],
)
def test_options_that_decide_the_networks(
    make_campaign: MakeCampaign, settings: tuple[str, ...], is_used: bool
) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    assert again(campaign, *settings)[0] == is_used


def test_another_version_trains(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    rewrite(campaign, code_version="0.0.1")
    is_used, (line,) = again(campaign)
    assert not is_used
    assert "another version of vaal" in line


def save(network: nn.Module, weights: Path) -> None:
    """Random weights, which no seed gives again."""
    for parameter in network.parameters():
        nn.init.uniform_(parameter, generator=torch.Generator().manual_seed(time.time_ns()))
    safetensors.torch.save_file(network.state_dict(), weights)


def test_weights_of_ones_own_that_were_written_over_train(
    make_campaign: MakeCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else scoring would refuse them, and its advice, to train again, would use the same networks again."""
    monkeypatch.setattr(task_trial, "_TRIED", {})
    weights = tmp_path / "own.safetensors"
    save(tasks.Plain(7), weights)
    campaign = make_campaign(*OWN, f"task.weights={weights}")
    pretend_trained(campaign)
    assert again(campaign)[0]
    save(tasks.Plain(7), weights)
    is_used, (line,) = again(campaign)
    assert not is_used
    assert "task.model=tests.tasks:Plain is another network than in round 000; so it is trained" in line
    weights.unlink()
    assert not again(campaign)[0]


def test_code_of_ones_own_that_changed_trains(make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_trial, "_TRIED", {})
    campaign = make_campaign(*OWN, "task.model=tests.tasks:trained")
    pretend_trained(campaign)
    assert again(campaign)[0]
    monkeypatch.setattr(task_trial, "_TRIED", {})
    features = tasks.Plain.features
    monkeypatch.setattr(tasks.Plain, "features", lambda own, x: features(own, x.flip(1)))
    assert not again(campaign)[0]


@pytest.mark.parametrize("has_file", [True, False])
def test_an_encoder_with_other_weights_trains(make_campaign: MakeCampaign, tmp_path: Path, has_file: bool) -> None:
    weights = tmp_path / "encoder.safetensors"
    save(encoders.Blocks(channels=1), weights)
    named = (f"encoder.weights={weights}",) if has_file else ()
    model = (
        "encoder.model=tests.encoders:Blocks",
        "encoder.arguments={channels=1}",
        "encoder.mean=[0.5]",
        "encoder.std=[0.5]",
        "train.input=pixels",
    )
    campaign = make_campaign(*model, *named)
    pretend_trained(campaign)
    sha256 = load_encoder(campaign.config.encoder, "cpu").sha256
    rewrite(campaign, embedding={"length": 6, "mean": [0.0] * 6, "factor": 1.0, "encoder_sha256": sha256})
    assert again(campaign)[0]
    rewrite(campaign, embedding={"length": 6, "mean": [0.0] * 6, "factor": 1.0, "encoder_sha256": "0" * 64})
    is_used, (line,) = again(campaign)
    assert not is_used
    assert "encoder.model=tests.encoders:Blocks is another network" in line
