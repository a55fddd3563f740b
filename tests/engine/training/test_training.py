"""Training under Ray Train and DeepSpeed: equal to plain PyTorch, to itself after a kill, and whole in its results."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.campaign.folder import Campaign
from engine.campaign.stages import Run
from engine.errors import ConfigError, InputError
from engine.models.weights import load_networks, make_networks
from engine.pool.identity import held_out_of
from engine.simulation.demo_pools import DemoPool
from engine.training.plan import HELD_OUT_SHARE, plan_training
from engine.training.train import train
from tests.conftest import MakeCampaign
from tests.learn import optimize

STEPS, TASK_STEPS = 60, 40
ALL_STEPS = STEPS + TASK_STEPS
SETTINGS = (
    "train.batch_size=16", f"train.max_steps={STEPS}", "train.workers=2", "train.zero_stage=2",
    "train.checkpoint_steps=8", "train.task=classification", f"train.task_steps={TASK_STEPS}", "train.refit=false",
)  # fmt: skip


def quiet(_: str) -> None: ...


def assert_equals_plain_pytorch(campaign: Campaign, files: dict[str, str]) -> None:
    expected = make_networks(campaign.config)
    optimize(plan_training(campaign), campaign, expected)
    found = load_networks(campaign.stage("train"), campaign.config, files)
    for network, plain in zip(found[:2], expected[:2], strict=True):
        assert network is not None and plain is not None  # noqa: PT018
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter, plain.get_parameter(name).detach(), atol=1e-5, rtol=0)


def events_of(campaign: Campaign, name: str) -> list[float]:
    """The values of a loss that a reader of TensorBoard's events finds now."""
    events = EventAccumulator(str(Path(campaign.stage("train").path) / "tensorboard")).Reload()
    return (
        [event.value for event in events.Scalars(f"loss/{name}")] if f"loss/{name}" in events.Tags()["scalars"] else []
    )


def kill_a_worker() -> None:
    workers = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if "RayTrainWorker" in " ".join(process.info["cmdline"] or [])
    ]
    os.kill(min(process.pid for process in workers), signal.SIGKILL)


def step_of(words: str) -> int:
    return int(words.split()[1])


@pytest.mark.timeout(480)
def test_training_that_lost_its_shards_and_changed_its_workers_equals_plain_pytorch(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path, local_ray: None
) -> None:
    folder, away = tmp_path / "pool", tmp_path / "away"
    shutil.copytree(Path(pool.shards[0]).parent, folder)
    campaign = make_campaign(*SETTINGS, "train.workers=1", shards=[f"{folder}/*.tar"])

    def lose_the_shards(share: float, words: str) -> None:
        if step_of(words) >= 16 and folder.exists():
            folder.rename(away)

    with pytest.raises(InputError, match=r"digits-0000\d.tar: the shard is gone; restore it"):
        train(campaign, Run(on_progress=lose_the_shards))
    assert not (campaign.stage("train") / "manifest.json").exists()
    away.rename(folder)
    checkpoints = sorted(Path(campaign.stage("train").path).glob("checkpoint/*/checkpoint_*/"))
    assert len(checkpoints) == campaign.config.train.checkpoints_kept
    damaged = checkpoints[-1] / "vae.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])

    notes: list[str] = []
    seen: list[tuple[float, str]] = []
    on_interrupt = signal.getsignal(signal.SIGINT)
    # As many workers as this machine has room for, and another ZeRO stage.
    elastic = make_again(campaign, {"train.workers": 4, "train.min_workers": 1, "train.zero_stage": 1})
    watched, measured = list[int](), dict[str, float]()

    def watch(share: float, words: str) -> None:
        seen.append((share, words))
        watched.append(len(events_of(elastic, "transductive")))

    def measure(name: str, value: float, /, **tags: str) -> None:
        measured[f"{name}{''.join(tags.values())}"] = value

    begin = time.time()
    manifest = train(elastic, Run(on_progress=watch, log=notes.append, measure=measure))
    # A reader of the events saw losses before training ended.
    assert watched[len(watched) // 2] > 0
    assert begin < measured.pop("vaal_checkpoint_time_seconds") < time.time()
    losses = {f"vaal_train_loss{name}": loss for name, loss in manifest["losses"].items()}
    progress = {"vaal_labels": 200, "vaal_train_step": ALL_STEPS, "vaal_train_steps": ALL_STEPS}
    assert measured == {**losses, **progress}
    assert signal.getsignal(signal.SIGINT) is on_interrupt
    assert "is not whole (vae.safetensors is not what was written); going back to the one before" in notes[0]
    assert f"resuming from {checkpoints[-2]}" in notes[1]
    assert step_of(seen[0][1]) > 8
    in_words = ", ".join(f"{name} {loss:.4g}" for name, loss in manifest["losses"].items())
    assert seen[-1] == (1, f"step {ALL_STEPS} of {ALL_STEPS}, {in_words}")
    # The task learner is trained too, and plain_pytorch has none: it changes nothing.
    assert_equals_plain_pytorch(campaign, manifest["files"])
    check_results(campaign, manifest)
    assert train(campaign) == manifest


@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.parametrize("at", [10, STEPS + 20])
def test_a_killed_worker_changes_no_bit(make_campaign: MakeCampaign, local_ray: None, at: int) -> None:
    undisturbed = train(make_campaign(*SETTINGS))
    killed: list[int] = []
    notes: list[str] = []

    def kill_once(share: float, words: str) -> None:
        if step_of(words) >= at and not killed:
            killed.append(step_of(words))
            kill_a_worker()

    disturbed = train(make_campaign(*SETTINGS, name="disturbed"), Run("local", kill_once, notes.append))
    assert killed
    assert any("resuming from" in note for note in notes)
    assert disturbed["files"] == undisturbed["files"]
    assert disturbed["diagnosis"] == undisturbed["diagnosis"]
    assert disturbed["task"] == undisturbed["task"]


def check_results(campaign: Campaign, manifest: dict[str, Any]) -> None:
    folder = Path(campaign.stage("train").path)
    metrics = pq.read_table(folder / "metrics.parquet").to_pylist()
    assert [row["step"] for row in metrics] == list(range(ALL_STEPS))
    before, after = metrics[:STEPS], metrics[STEPS:]
    assert all(row["task"] is None and row["transductive"] is not None for row in before)
    assert all(row["task"] is not None and row["transductive"] is None for row in after)
    assert sum(row["task_held_out"] is not None for row in after) == 20
    for name in ("transductive", "task"):
        scalars = events_of(campaign, name)
        assert scalars == pytest.approx([row[name] for row in metrics if row[name] is not None], rel=1e-6)
    assert after[-1]["task"] < 0.9 * after[0]["task"]
    counts = {"labelled": 200, "labelled_not_decoded": 0, "unlabelled_estimate": 1597, "steps": STEPS}
    assert manifest["counts"] == counts | {"task_steps": TASK_STEPS}
    assert manifest["task"]["classes"] == [str(digit) for digit in range(7)]
    assert 0.2 < manifest["task"]["held_out_accuracy"] <= 1
    assert manifest["task"]["calibrated_on"] == manifest["task"]["held_out"] > 20
    state = safetensors.torch.load((folder / "task.safetensors").read_bytes())
    assert float(state["temperature"]) == pytest.approx(manifest["task"]["temperature"])
    assert 0 <= manifest["waiting_for_images"] < 1
    assert manifest["signal"] in ("present", "none")
    assert manifest["diagnosis"]["held_out"]["labelled"] == 200
    assert set(manifest["files"]) == {
        "vae.safetensors", *(f"discriminator-{fold}.safetensors" for fold in range(5)), "task.safetensors",
        "centres.safetensors", "metrics.parquet",
    }  # fmt: skip
    header = safetensors.torch.load((folder / "discriminator-1.safetensors").read_bytes())
    assert {tensor.dtype for tensor in header.values()} == {torch.float32}


def make_again(campaign: Campaign, settings: dict[str, Any]) -> Campaign:
    from engine.config.toml import override

    return Campaign(campaign.home, override(campaign.config, settings, "test"), 0)


def test_labels_that_cannot_train_are_refused_before_anything_starts(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path
) -> None:
    labels = tmp_path / "all.csv"
    rows = "".join(f"{shard},{key},{label}\n" for (shard, key), label in pool.oracle.items())
    labels.write_text("shard,key,label\n" + rows)
    with pytest.raises(ConfigError, match="is more than the 0 items of the pool"):
        make_campaign(labels=labels)
    (shard, key), _ = next(iter(pool.oracle.items()))
    labels.write_text(f"shard,key,label\n{shard},{key},1\n")
    campaign = make_campaign(labels=labels, name="one")
    with pytest.raises(ConfigError, match="all 1 labelled images fall into one fold"):
        plan_training(campaign)
    held_out = next(item for item in pool.oracle if held_out_of(*item, HELD_OUT_SHARE))
    labels.write_text(f"shard,key,label\n{held_out[0]},{held_out[1]},1\n")
    campaign = make_campaign("train.folds=1", labels=labels, name="held out")
    with pytest.raises(ConfigError, match="leaves none of the 1 to train on; label more"):
        plan_training(campaign)
