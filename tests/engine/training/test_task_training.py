"""The task learner's training: as plain PyTorch, for any number of workers, and from wherever it was interrupted."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.models.task_networks import TASK_NETWORKS
from engine.models.weights import make_classifier, to_input
from engine.simulation.demo_pools import DemoPool
from engine.training.labelled import Part, as_seen, cache_for_task
from engine.training.plan import TrainingPlan, plan_training
from tests.engine.training import task_worker
from tests.engine.training.task_worker import STEPS
from tests.processes import Processes
from vaal.task.classifier import augmented

SETTINGS = ("train.batch_size=16", "train.task=classification", f"train.task_steps={STEPS}")
WORLDS = [1, 2]


@pytest.fixture(scope="module")
def campaign(pool: DemoPool, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    config = override(CampaignConfig(), parse_settings([*pool.settings, *SETTINGS]), "test")
    home = tmp_path_factory.mktemp("task") / "campaign"
    return create(str(home), pool.shards, str(pool.labels), config, lambda _: None)


@pytest.fixture(scope="module")
def runs(campaign: Campaign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    folder = tmp_path_factory.mktemp("task-runs")
    made = Processes(task_worker.__name__, str(campaign.home), folder, (2, 1))
    yield made
    made.end()


@pytest.fixture(scope="module")
def plain(campaign: Campaign, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[float]]:
    """Weights, and the cross-entropy of the held-out images whenever a twentieth of the updates is done."""
    plan = plan_training(campaign)
    return plain_training(plan, tmp_path_factory.mktemp("plain") / "cache")


def plain_training(plan: TrainingPlan, file: Path) -> tuple[dict[str, Tensor], list[float]]:
    """The recipe in a loop of its own."""
    assert plan.task is not None
    num_streams, batch = plan.deal.num_streams, plan.config.train.batch_size
    split = plan.task.training, plan.task.judging
    labelled, judging = cache_for_task(
        plan.pool, plan.positions, split, Part(0, 1), num_streams, as_seen(plan.pool, file)
    )
    network = make_classifier(plan.config, len(plan.task.classes)).train()
    recipe, looks = TASK_NETWORKS["small"], []
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    answer = plan.task.answer_N[torch.from_numpy(labelled.number_N)]
    for step in range(STEPS):
        rows, pixels = [], []
        for stream in range(num_streams):
            share = batch // num_streams
            rows.append(labelled.draw(stream, (0, 4), step * share, share))
            seen = labelled.seen[rows[-1]]
            pixels.append(augmented(seen, np.random.default_rng((0, 6, step, stream)), flips=True))
        x = to_input(np.concatenate(pixels), torch.device("cpu"))
        warm = round(0.1 * STEPS)
        cosine = (1 + math.cos(math.pi * (step - warm) / (STEPS - warm))) / 2
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * ((step + 1) / warm if step < warm else cosine)
        loss = F.cross_entropy(network(x), answer[np.concatenate(rows)], label_smoothing=0.1)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.no_grad():
            logit = network(to_input(labelled.seen[judging], torch.device("cpu"))).double()
        factors = torch.logspace(math.log10(0.05), math.log10(2), 500, dtype=torch.float64)
        looks.append(min(float(F.cross_entropy(factor * logit, answer[judging])) for factor in factors))
    return {f"weight/{name}": value.detach() for name, value in network.named_parameters()}, looks


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("world", WORLDS)
def test_workers_and_zero_stages_train_a_task_learner_alike(
    runs: Processes, plain: tuple[dict[str, Tensor], list[float]], world: int, stage: int
) -> None:
    folder, (weights, looks) = runs.of(world), plain
    for kind in ("task", "resumed"):
        found = safetensors.torch.load_file(folder / f"{kind}-{world}-{stage}.safetensors")
        assert {key for key in found if key.startswith("weight/")} == set(weights)
        for key, tensor in weights.items():
            torch.testing.assert_close(found[key], tensor, atol=2e-4, rtol=0)
        seen = json.loads((folder / f"{kind}-{world}-{stage}.json").read_text())
        assert seen["looks"] == pytest.approx(looks, rel=1e-3)
        assert seen["best"] == pytest.approx(min(seen["looks"]), rel=1e-6)
        assert found["buffer/temperature"] == 1


@pytest.mark.parametrize("stage", range(4))
def test_a_resumed_task_learner_is_the_undisturbed_one_bit_for_bit(runs: Processes, stage: int) -> None:
    for name in ("{}", "best-{}"):
        found, expected = (
            safetensors.torch.load_file(runs.of(2) / f"{name.format(kind)}-2-{stage}.safetensors")
            for kind in ("resumed", "task")
        )
        assert set(found) == set(expected)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("world", WORLDS)
def test_micro_batches_train_a_task_learner_alike(
    runs: Processes, plain: tuple[dict[str, Tensor], list[float]], world: int
) -> None:
    found = safetensors.torch.load_file(runs.of(world) / f"accumulated-{world}.safetensors")
    for key, tensor in plain[0].items():
        torch.testing.assert_close(found[key], tensor, atol=2e-4, rtol=0)


def test_it_never_draws_what_judges_it(campaign: Campaign, tmp_path: Path) -> None:
    plan = plan_training(campaign)
    assert plan.task is not None
    split = plan.task.training, plan.task.judging
    assert len(split[1]) == pytest.approx(0.2 * 200, abs=15)
    for world in (1, 2):
        drawn, judging = set[int](), list[int]()
        for rank in range(world):
            part = Part(rank, world)
            where = part, 8, as_seen(plan.pool, tmp_path / f"task-{world}-{rank}")
            labelled, rows = cache_for_task(plan.pool, plan.positions, split, *where)
            for stream in part.streams(8):
                drawn |= set(labelled.number_N[labelled.draw(stream, (0,), 0, 300)].tolist())
            judging += labelled.number_N[rows].tolist()
        assert drawn == set(split[0])
        assert sorted(judging) == split[1]
