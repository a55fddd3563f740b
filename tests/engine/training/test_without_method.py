"""Where no score needs VAAL's networks, none are trained: latents are the task learner's features, or coarse pixels."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.campaign.folder import Campaign
from engine.models.diagnosis import NOT_TRAINED, not_trained, summary
from engine.models.front import Front
from engine.models.weights import load_networks, make_classifier, make_networks, save_weights
from engine.pool.items import read_shard
from engine.simulation.demo_pools import DemoPool
from engine.training.labelled import decoded
from engine.training.plan import TrainingPlan, plan_training
from engine.training.refitting import fit_at_last
from engine.training.task_judging import LEAST_CONTROLS, judge_task
from engine.training.train import train
from tests.conftest import MakeCampaign
from vaal.task.projection import Projection

MARGIN = ("score.acquisition=['margin','core_set']", "select.acquisition=margin", "train.task=classification")
RANDOM = ("score.acquisition=['random']", "select.acquisition=random")
FRONT = Front(torch.device("cpu"))


def pixels_of(plan: TrainingPlan, count: int) -> torch.Tensor:
    shard = plan.pool.shards[0]
    images = [plan.pool.sight.decoded(item.data) for item in list(read_shard(shard, plan.pool.sight.image))[:count]]
    return FRONT(np.stack([image for image in images if image is not None]))


def trained(campaign: Campaign) -> tuple[TrainingPlan, Any, dict[str, str]]:
    """Networks with the initial weights at the end of training, and the files that are written."""
    plan = plan_training(campaign)
    networks = make_networks(campaign.config)
    if plan.task is not None:
        networks = networks._replace(task=make_classifier(campaign.config, len(plan.task.classes)))
    networks, files, _ = fit_at_last(plan, networks.ready(), FRONT, plan.task.classes if plan.task else ())
    return plan, networks, files | save_weights(plan.folder, networks.files())


@pytest.mark.heavy
def test_latents_are_the_task_learners_features(make_campaign: MakeCampaign) -> None:
    plan, networks, files = trained(make_campaign(*MARGIN, "train.folds=1"))
    assert plan.num_steps == 0
    assert plan.task is not None
    assert plan.all_steps == plan.task.num_steps == 500
    assert plan.pool.held_out == 0
    assert set(files) == {
        "task.safetensors", "projection.safetensors", "acquisition-core_set.safetensors", "centres.safetensors",
    }  # fmt: skip
    x = pixels_of(plan, 5)
    loaded = load_networks(plan.folder, plan.config, files, with_task=True)
    assert loaded.vae is None
    assert loaded.discriminators is None
    with torch.no_grad():
        latent = networks.task.features(x)
        assert torch.equal(networks.latents(x), latent)
        assert torch.equal(loaded.latents(x), latent)
    assert loaded.num_latents == latent.shape[1]
    kept = loaded.summaries["core_set"].tensors
    assert all(torch.equal(kept[key], value) for key, value in networks.summaries["core_set"].tensors.items())
    # What is fitted saw every labelled image.
    assert kept["moved_ND"].shape == (200, loaded.num_latents)


@pytest.mark.heavy
def test_without_a_task_learner_latents_are_coarse_pixels(make_campaign: MakeCampaign) -> None:
    plan, networks, files = trained(make_campaign(*RANDOM))
    assert plan.all_steps == 0
    assert set(files) == {"projection.safetensors", "centres.safetensors"}
    x = pixels_of(plan, 3)
    expected = x.reshape(3, 1, 4, 2, 4, 2).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(networks.latents(x), expected)
    torch.testing.assert_close(load_networks(plan.folder, plan.config, files).latents(x), expected)


def test_long_features_are_projected_and_keep_their_distances() -> None:
    x = torch.randn(60, 4096, generator=torch.Generator().manual_seed(1))
    projection = Projection.of(4096, 3)
    assert torch.equal(projection.matrix, Projection.of(4096, 3).matrix)
    assert not torch.equal(projection.matrix, Projection.of(4096, 4).matrix)
    ratio = torch.pdist(projection(x)) / torch.pdist(x)
    assert projection.num_latents == 128
    assert 0.7 < ratio.min() < 1 < ratio.max() < 1.3
    assert torch.equal(Projection.of(512, 0)(x[:, :512]), x[:, :512])


def test_the_manifest_says_that_vaal_was_not_trained() -> None:
    entries: Any = not_trained()
    assert entries["signal"] == "none"
    assert entries["diagnosis"]["findings"] == ["VAAL was not trained: no score of score.acquisition needs it"]
    assert summary(entries) == NOT_TRAINED


@pytest.mark.heavy
@pytest.mark.parametrize("num_controls", [0, LEAST_CONTROLS - 1, LEAST_CONTROLS])
def test_the_temperature_is_that_of_the_control_arm_where_it_is_large_enough(
    make_campaign: MakeCampaign, num_controls: int
) -> None:
    plan = plan_training(make_campaign(*MARGIN))
    assert plan.task is not None
    controls = frozenset(plan.positions[number][:2] for number in range(num_controls))
    plan = plan._replace(task=plan.task._replace(judging=list(range(200)), controls=controls))
    assert plan.task is not None
    task = make_classifier(plan.config, 7).eval()
    entry = judge_task(plan, task, FRONT)
    by_controls = num_controls == LEAST_CONTROLS
    assert entry["on_control_arm"] is by_controls
    assert entry["calibrated_on"] == (num_controls if by_controls else 200)
    assert entry["held_out"] == 200
    assert float(task.temperature) == pytest.approx(entry["temperature"])


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_only_a_task_learner_of_several_labels_is_trained(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path, local_ray: None
) -> None:
    rows = [line.split(",") for line in pool.labels.read_text().splitlines()[1:]]
    labels = tmp_path / "several.csv"
    with labels.open("w", newline="") as file:
        names = (["odd"] * (int(label) % 2) + ["large"] * (int(label) > 3) for *_, label in rows)
        several = [(shard, key, json.dumps(found)) for (shard, key, _), found in zip(rows, names, strict=True)]
        csv.writer(file).writerows([("shard", "key", "label"), *several])
    settings = (
        "handoff.question.task=classes",
        "train.task=labels",
        "train.task_steps=400",
        "train.checkpoint_steps=150",
    )
    scores = ("score.acquisition=['entropy','core_set']", "select.acquisition=entropy")
    campaign = make_campaign(*settings, *scores, "train.task_augmentation=none", labels=labels)
    manifest = train(campaign)
    assert set(manifest["files"]) == {
        "task.safetensors", "projection.safetensors", "acquisition-core_set.safetensors", "centres.safetensors",
        "metrics.parquet",
    }  # fmt: skip
    assert manifest["counts"]["steps"] == 0
    assert manifest["counts"]["task_steps"] == 400
    assert manifest["signal"] == "none"
    assert summary(manifest) == NOT_TRAINED
    assert manifest["task"]["classes"] == ["large", "odd"]
    assert manifest["task"]["held_out_accuracy"] > 0.6
    assert set(manifest["losses"]) == {"task", "task_held_out"}
    networks = load_networks(campaign.stage("train"), campaign.config, manifest["files"], with_task=True)
    assert networks.task is not None
    assert networks.task.kind == "labels"
    # The accuracy is that of the weights that were written.
    plan = plan_training(campaign)
    assert plan.task is not None
    images = dict(decoded(plan.pool, [plan.positions[number] for number in plan.task.judging]))
    with torch.no_grad():
        logit = networks.task(FRONT(np.stack([images[number] for number in range(len(images))])))
    right = (logit > 0) == (plan.task.answer_N[plan.task.judging] > 0)
    assert float(right.double().mean()) == pytest.approx(manifest["task"]["held_out_accuracy"])
    # They are those of the best look at these images.
    looks = (campaign.stage("train") / "metrics.parquet").read_table()["task_held_out"].drop_null().to_pylist()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, plan.task.answer_N[plan.task.judging])
    assert float(loss) == pytest.approx(min(looks), rel=1e-5)
    assert looks[-1] > min(looks)
