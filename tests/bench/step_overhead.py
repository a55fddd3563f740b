"""Seconds of an iteration under DeepSpeed ZeRO 0 to 3 with one worker, beside plain PyTorch, in one run.

    python tests/bench/step_overhead.py [small]

`vaal_step` with the default networks (preset small, 32 px RGB, 64 images of each pool) on the same images, noise and
initial weights, in one process: the kinds take turns in blocks of iterations. A ratio is the median over the rounds of
a block's median to that of plain PyTorch in the same round. Target: ZeRO 1 takes at most 1.10 times as long. On a CPU
weights are channels-last at stage 0, as they can be in plain PyTorch.
"""

import itertools
import os
import statistics
from collections.abc import Callable

import torch
import torch.distributed as dist
from measure import interleaved, is_small, machine, ratio

from engine.cluster.allocation import keep_freed_memory
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.models.weights import make_networks
from engine.training import zero
from tests.learn import leave
from tests.updater import OptimizerUpdater
from vaal.losses import LossWeights
from vaal.step import Batch, PoolBatch, Updater, Updates, vaal_step

TARGET = 1.10
NUM_BATCHES = 8


def random_batches(config: CampaignConfig, num_latents: int) -> list[list[Batch]]:
    """Images of noise: how long a step takes does not depend on what they show."""
    count, side, channels = config.train.batch_size, config.image.size, config.image.channels
    generator = torch.Generator().manual_seed(0)

    def pool() -> PoolBatch:
        x_BCHW = torch.rand(count, channels, side, side, generator=generator) * 2 - 1
        return PoolBatch(x_BCHW, torch.arange(count) % config.train.folds)

    return [
        [Batch(pool(), pool(), torch.randn(2 * count, num_latents, generator=generator))] for _ in range(NUM_BATCHES)
    ]


def iteration(stage: int | None, *, is_channels_last: bool = False) -> Callable[[], None]:
    """One iteration under a ZeRO stage, or in plain PyTorch; it goes on where the last one ended."""
    config = override(CampaignConfig(), {"train.zero_stage": stage or 0}, "bench")
    networks, train = make_networks(config), config.train

    def updater(module: torch.nn.Module) -> Updater:
        optimizer = torch.optim.Adam(module.parameters(), lr=train.learning_rate)
        if stage is None:
            return OptimizerUpdater(module, optimizer, train.gradient_accumulation, train.gradient_clipping)
        return zero.EngineUpdater(module, optimizer, zero.settings(train, world=1))

    assert networks.vae is not None
    if is_channels_last:
        networks.vae.to(memory_format=torch.channels_last)
    assert networks.discriminators is not None
    vae, discriminators = updater(networks.vae), updater(networks.discriminators)
    batches = itertools.cycle(random_batches(config, networks.num_latents))

    def step() -> None:
        vaal_step(vae, discriminators, batches, LossWeights(), Updates())

    return step


def main() -> None:
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    zero.start("cpu")
    keep_freed_memory()
    steps = {"plain PyTorch": iteration(None), "channels-last": iteration(None, is_channels_last=True)}
    steps |= {f"ZeRO {stage}": iteration(stage) for stage in range(4)}
    interleaved(steps, num_rounds=1, block=3)
    num_rounds, block = (2, 5) if is_small() else (12, 12)
    medians = interleaved(steps, num_rounds=num_rounds, block=block)
    print(f"{machine()}; {num_rounds} rounds of {block} iterations of each kind")
    for name, found in medians.items():
        share = ratio(medians, name, to="plain PyTorch")
        verdict = f"  (target at most {TARGET:.2f})" if name == "ZeRO 1" else ""
        print(f"{name:<14} {statistics.median(found) * 1000:7.1f} ms a step  ratio {share:.3f}{verdict}")
    leave()


if __name__ == "__main__":
    main()
