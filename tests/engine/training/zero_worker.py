"""One of several processes that train a campaign with DeepSpeed over gloo, without Ray: `python -m ... HOME OUT`.

Trains under every ZeRO stage for STEPS iterations; two processes write checkpoints at half way, from which they and all
others go on. Rank 0 writes the weights to OUT as NAME.safetensors.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist

from engine.campaign.folder import Campaign
from engine.campaign.opening import open_campaign
from engine.config.toml import override
from engine.models.weights import make_networks
from engine.training import zero
from engine.training.checkpoints import RunState, fault_of, read_checkpoint, write_checkpoint
from engine.training.labelled import Part
from engine.training.plan import TrainingPlan, plan_training
from tests.learn import batches_of, labelled_of, leave, to_batch
from vaal.losses import LossWeights
from vaal.step import Updates, vaal_step

STEPS = 12
VARIANT = {"train.gradient_accumulation": 2, "train.gradient_clipping": 1.0, "train.offload": "optimizer"}


class Run:
    """Engines of one ZeRO stage, and the batches they are at."""

    def __init__(self, campaign: Campaign, part: Part, scratch: Path) -> None:
        self.campaign, self.part, self.train = campaign, part, campaign.config.train
        self.plan: TrainingPlan = plan_training(campaign)
        networks = make_networks(campaign.config)
        self.num_latents = networks.num_latents
        settings = zero.settings(self.train, part.world)
        self.engines = {
            name: zero.EngineUpdater(m, torch.optim.Adam(m.parameters(), lr=self.train.learning_rate), settings)
            for name, m in (("vae", networks.vae), ("discriminators", networks.discriminators))
            if m is not None
        }
        self.labelled = labelled_of(self.plan, campaign, part, scratch / f"labelled-{part.rank}")
        self.state: dict[str, Any] | None = None

    def steps(self, first: int, last: int) -> None:
        batches = iter(batches_of(self.plan, self.labelled, self.part, self.num_latents, self.state))

        def feed() -> Any:
            for parts, state in batches:
                self.state = state
                yield [to_batch(part) for part in parts]

        source, train = feed(), self.train
        for _ in range(first, last):
            weights = LossWeights(labelled_share=self.plan.labelled_share)
            updates = Updates(train.vae_steps, train.discriminator_steps)
            vaal_step(self.engines["vae"], self.engines["discriminators"], source, weights, updates)

    def save(self, folder: Path) -> None:
        assert self.state is not None
        states = {name: engine.full_state(keep=self.part.rank == 0) for name, engine in self.engines.items()}
        parts: list[Any] = [{}] * self.part.world
        dist.all_gather_object(parts, self.state["streams"])
        if self.part.rank == 0:
            folder.mkdir()
            streams = {number: stream for part in parts for number, stream in part.items()}
            write_checkpoint(folder, states, RunState(STEPS // 2, [], {**self.state, "streams": streams}, {}))
        dist.barrier()

    def load(self, folder: Path) -> None:
        deadline = time.monotonic() + 200
        while fault := fault_of(folder):
            assert time.monotonic() < deadline, fault
            time.sleep(0.1)
        states, progress = read_checkpoint(folder)
        for name, engine in self.engines.items():
            engine.load(states[name])
        self.state = progress.batches

    def write(self, file: Path) -> None:
        weights = {
            f"{name}/{key}": tensor
            for name, engine in self.engines.items()
            for key, tensor in engine.full_state(keep=True).items()
        }
        if self.part.rank == 0:
            safetensors.torch.save_file(weights, file)


def main(home: str, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    part = Part(dist.get_rank(), dist.get_world_size())
    zero.start("cpu")
    campaign = open_campaign(home, [])
    with tempfile.TemporaryDirectory() as scratch:

        def start(**settings: Any) -> Run:
            changed = override(campaign.config, {key.replace("__", "."): v for key, v in settings.items()}, "test")
            return Run(Campaign(campaign.home, changed, 0), part, Path(scratch))

        for stage in range(4):
            run = start(train__zero_stage=stage)
            run.steps(0, STEPS // 2)
            if part.world == 2:
                run.save(out / f"checkpoint-{stage}")
            run.steps(STEPS // 2, STEPS)
            run.write(out / f"world-{part.world}-stage-{stage}.safetensors")
            # Another stage than the checkpoint's, on another number of workers, but on two, to compare the bits.
            resumed = start(train__zero_stage=stage)
            resumed.load(out / f"checkpoint-{stage if part.world == 2 else (stage + 1) % 4}")
            resumed.steps(STEPS // 2, STEPS)
            resumed.write(out / f"resumed-{part.world}-stage-{stage}.safetensors")
        variant = start(**{key.replace(".", "__"): value for key, value in VARIANT.items()}, train__zero_stage=2)
        variant.steps(0, STEPS)
        variant.write(out / f"variant-{part.world}.safetensors")
    leave()


if __name__ == "__main__":
    assert "RANK" in os.environ
    main(sys.argv[1], Path(sys.argv[2]))
