"""Accuracy and seconds of the task learner that the engine trains, beside a plain PyTorch loop of the same recipe.

    python tests/bench/task_training.py [small]

CIFAR-10 JPEG at 32 px, 2,000 labels drawn at random, of which both train on the same 80 %; train.task_network=small,
three seeds. The engine's is `engine.training.task_training` under DeepSpeed with one worker, and its weights are those
that its held-out labels choose; the loop has torch's own schedule and order, and keeps its last weights. Test on the
images of two test shards. Target: at most two points less than the loop. The engine's seconds include the decoding and
20 looks at held-out images.
"""

import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
import torch.nn.functional as F
from measure import cifar10_shards, is_small, machine
from PIL import Image

from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.models.front import Front
from engine.models.task_networks import TASK_NETWORKS
from engine.models.weights import make_classifier, to_input
from engine.training import zero
from engine.training.labelled import Part, decoded
from engine.training.plan import TrainingPlan, plan_training
from engine.training.task_judging import judge_task
from engine.training.task_training import TaskTraining
from tests.learn import leave
from vaal.task.classifier import augmented
from vaal.task.model import Task

CPU = torch.device("cpu")
TARGET_POINTS = 2.0
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def test_images(source: Path, num_shards: int) -> tuple[Pixels, list[str]]:
    """Pixels (N, 32, 32, 3), and the class of each."""
    pixels, classes = [], []
    for file in sorted(source.glob("test-*.tar"))[:num_shards]:
        with tarfile.open(file) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                if member.name.endswith(".jpg"):
                    pixels.append(np.asarray(Image.open(content).convert("RGB")))
                else:
                    classes.append(content.read().decode().strip())
    return np.stack(pixels), classes


def campaign_plan(folder: Path, source: Path, settings: dict[str, Any], num_labels: int) -> TrainingPlan:
    rows = pq.read_table(source / "train-oracle.parquet").slice(0, 10_000).to_pylist()
    chosen = np.random.default_rng(settings["train.seed"]).permutation(len(rows))[:num_labels]
    lines = [f"{rows[n]['shard']},{rows[n]['key']},{rows[n]['label']}" for n in sorted(chosen)]
    (folder / "labels.csv").write_text("\n".join(["shard,key,label", *lines]))
    config = override(CampaignConfig(), settings, "bench")
    shards = [f"{source}/train-0000{{0..9}}.tar"]
    return plan_training(create(str(folder / "campaign"), shards, str(folder / "labels.csv"), config, lambda _: None))


def by_the_engine(plan: TrainingPlan, file: Path) -> Task:
    training = TaskTraining(plan, Part(0, 1), Front(CPU), file)
    assert plan.task is not None
    for number in range(plan.task.num_steps):
        training.step(number)
    task = make_classifier(plan.config, len(plan.task.classes))
    task.load_state_dict({name.partition("/")[2]: tensor for name, tensor in training.best.items()})
    judge_task(plan, task.eval(), Front(CPU))
    return task


def by_a_loop(plan: TrainingPlan) -> Task:
    assert plan.task is not None
    train, seed = plan.config.train, plan.config.train.seed
    numbered = dict(decoded(plan.pool, [plan.positions[n] for n in plan.task.training]))
    pixels = np.stack([numbered[n] for n in range(len(numbered))])
    answer_N = plan.task.answer_N[plan.task.training]
    task, recipe = make_classifier(plan.config, len(plan.task.classes)).train(), TASK_NETWORKS["small"]
    optimizer = torch.optim.AdamW(task.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, plan.task.num_steps, pct_start=0.1, cycle_momentum=False
    )
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield from torch.randperm(len(pixels), generator=generator).split(train.batch_size)

    for _, place_B in zip(range(plan.task.num_steps), batches(), strict=False):
        x_BCHW = to_input(augmented(pixels[place_B.numpy()], rng, flips=True), CPU)
        loss = F.cross_entropy(task(x_BCHW), answer_N[place_B], label_smoothing=0.1)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return task.eval()


@torch.inference_mode()
def accuracy(task: Task, classes: list[str], pixels: Pixels, truth: list[str]) -> float:
    parts = [task(to_input(part, CPU)).argmax(dim=1) for part in np.array_split(pixels, -(-len(pixels) // 500))]
    return float(
        np.mean([classes[number] == name for number, name in zip(torch.cat(parts).tolist(), truth, strict=True)])
    )


def main() -> None:
    if not (shards := cifar10_shards()):
        sys.exit("task_training: CIFAR-10's shards are not below VAAL_DATA")
    source, small = shards[0].parent, is_small()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29577", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    dist.init_process_group("gloo")
    zero.start("cpu")
    torch.set_num_threads(1)
    print(machine())
    pixels, truth = test_images(source, 2)
    settings: dict[str, Any] = {
        "train.task": "classification", "score.acquisition": ["margin"], "select.acquisition": "margin",
        **({"train.task_steps": 200} if small else {}),
    }  # fmt: skip
    gaps, ratios = [], []
    for seed in range(1 if small else 3):
        with tempfile.TemporaryDirectory() as folder:
            plan = campaign_plan(Path(folder), source, {**settings, "train.seed": seed}, 500 if small else 2000)
            assert plan.task is not None
            seconds, found = [], []
            for train in (lambda: by_the_engine(plan, Path(folder) / "cache"), lambda: by_a_loop(plan)):  # noqa: B023
                begin = time.process_time()
                task = train()
                seconds.append(time.process_time() - begin)
                found.append(100 * accuracy(task, plan.task.classes, pixels, truth))
        gaps.append(found[0] - found[1])
        ratios.append(seconds[0] / seconds[1])
        print(
            f"seed {seed}, {plan.task.num_steps} updates: engine {found[0]:.1f} % in {seconds[0]:.0f} CPU seconds, "
            f"loop {found[1]:.1f} % in {seconds[1]:.0f}",
            flush=True,
        )
    gap, ratio = statistics.mean(gaps), statistics.median(ratios)
    print(f"engine - loop: {gap:+.1f} points (target at least {-TARGET_POINTS:g})")
    print(f"engine / loop: {ratio:.2f} times the CPU seconds")
    leave()


if __name__ == "__main__":
    main()
