"""One of several processes that train a task learner with DeepSpeed over gloo, without Ray: `python -m ... HOME OUT`.

Trains under every ZeRO stage, and again from half way under the next one. Rank 0 writes the weights, the best ones and
the looks at held-out images to OUT.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist

from engine.campaign.folder import Campaign
from engine.campaign.opening import open_campaign
from engine.config.toml import override
from engine.models.front import Front
from engine.training import zero
from engine.training.labelled import Part
from engine.training.plan import plan_training
from engine.training.task_training import TaskTraining
from tests.learn import leave

STEPS = 12


def main(home: str, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    part = Part(dist.get_rank(), dist.get_world_size())
    zero.start("cpu")
    campaign = open_campaign(home, [])

    def start(scratch: str, **settings: Any) -> TaskTraining:
        config = override(campaign.config, {key.replace("__", "."): value for key, value in settings.items()}, "test")
        plan = plan_training(Campaign(campaign.home, config, 0))
        return TaskTraining(plan, part, Front(torch.device("cpu")), Path(scratch) / f"task-{part.rank}")

    def write(training: TaskTraining, losses: list[Any], name: str) -> None:
        state = training.engine.full_state(keep=True)
        if part.rank == 0:
            safetensors.torch.save_file(state, out / f"{name}.safetensors")
            safetensors.torch.save_file(training.best, out / f"best-{name}.safetensors")
            looks = [float(loss["task_held_out"]) for loss in losses if loss["task_held_out"] is not None]
            (out / f"{name}.json").write_text(json.dumps({"looks": looks, "best": training.best_loss}))

    for stage in range(4):
        with tempfile.TemporaryDirectory() as scratch:
            training = start(scratch, train__zero_stage=stage)
            losses = [training.step(number) for number in range(STEPS // 2)]
            half = training.engine.full_state(keep=True), training.best, training.best_loss
            after = [training.step(number) for number in range(STEPS // 2, STEPS)]
            write(training, losses + after, f"task-{part.world}-{stage}")
            # On two workers the same stage, to compare the bits.
            resumed = start(scratch, train__zero_stage=stage if part.world == 2 else (stage + 1) % 4)
            resumed.engine.load(half[0])
            resumed.best, resumed.best_loss = half[1:]
            after = [resumed.step(number) for number in range(STEPS // 2, STEPS)]
            write(resumed, losses + after, f"resumed-{part.world}-{stage}")
    with tempfile.TemporaryDirectory() as scratch:
        training = start(scratch, train__gradient_accumulation=2)
        write(training, [training.step(number) for number in range(STEPS)], f"accumulated-{part.world}")
    leave()


if __name__ == "__main__":
    assert "RANK" in os.environ
    main(sys.argv[1], Path(sys.argv[2]))
