"""Images/s of scoring and of VAAL's training step on a GPU, by arithmetic, and the share of the GPU's matrix peak.

    python tests/bench/gpu_speed.py [small]

Networks of preset base at 32 and at 224 px (small: 32 px alone), on noise. Scoring is what an actor does with a chunk
that was decoded: bytes to the GPU, the networks, scores and latents back. A training step is Algorithm 1's iteration,
on batches that are on the GPU. Neither decodes. Variants:

    fp32                 exact products
    TF32                 convolutions and matrix products in TF32, what fp32 is by default in PyTorch's convolutions
    bf16                 score.precision and train.precision
    bf16, channels last  also the weights in that layout
    bf16, compiled       also by torch.compile (scoring alone)

The peak is what a matrix product of 8,192 x 8,192 in bf16 reaches in the same run. Operations are counted by PyTorch,
two for a multiplication and addition. Target: half of the bf16 peak at 224 px. Says so and ends where there is no GPU.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from measure import is_small
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.models.front import Front
from engine.models.weights import make_networks
from engine.scoring.chunks import CHUNK_BYTES
from engine.scoring.scorer import Scorer
from tests.updater import OptimizerUpdater
from vaal.assembly import Networks
from vaal.losses import LossWeights
from vaal.step import Batch, PoolBatch, Updates, vaal_step

TARGET = 0.5
GPU = torch.device("cuda")
VARIANTS = ("fp32", "TF32", "bf16", "bf16, channels last", "bf16, compiled")
BATCHES = {32: (64, 512), 224: (64,)}
"""Images of each pool in an update, by the size of an image."""


@contextmanager
def arithmetic(variant: str) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = variant != "fp32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def seconds(step: Callable[[], object], num_steps: int) -> float:
    """Of a step, the median of five blocks after a first one that is left out."""
    found = []
    for _ in range(6):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(num_steps):
            step()
        torch.cuda.synchronize()
        found.append((time.perf_counter() - begin) / num_steps)
    return statistics.median(found[1:])


def operations(step: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peak() -> float:
    """Operations a second of a matrix product in bf16."""
    side = 8192
    a_SS, b_SS = (torch.randn(side, side, device=GPU, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: torch.mm(a_SS, b_SS), 10)


def config_of(size: int, variant: str) -> CampaignConfig:
    precision = "bf16" if variant.startswith("bf16") else "fp32"
    settings = {"train.preset": "base", "image.size": size, "score.precision": precision}
    return override(CampaignConfig(), settings, "bench")


def networks_of(config: CampaignConfig, variant: str) -> Networks:
    torch.manual_seed(0)
    networks = make_networks(config).ready(GPU)
    for module in networks.modules():
        if variant == "bf16, channels last" or variant == "bf16, compiled":
            module.to(memory_format=torch.channels_last)
    return networks


def scoring(size: int, variant: str) -> tuple[Callable[[], object], int]:
    """A step that scores a chunk, and the images in it."""
    config, count = config_of(size, variant), CHUNK_BYTES // (3 * size**2)
    networks = networks_of(config, variant)
    if variant == "bf16, compiled":
        assert networks.vae is not None
        networks.vae.encoder.compile()
    scorer = Scorer(config, networks, Front(GPU), None)
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    fold = np.arange(count) % config.train.folds
    return lambda: scorer(pixels, fold), count


def training(size: int, count: int, variant: str) -> Callable[[], object]:
    """A step that trains on so many images of each pool."""
    config = config_of(size, variant)
    networks = networks_of(config, variant)
    vae, discriminators = (
        OptimizerUpdater(module.train().requires_grad_(True), torch.optim.Adam(module.parameters(), lr=5e-4))
        for module in (networks.vae, networks.discriminators)
        if isinstance(module, nn.Module)
    )

    def pool() -> PoolBatch:
        x_BCHW = torch.rand(count, 3, size, size, device=GPU) * 2 - 1
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        return PoolBatch(x_BCHW, torch.arange(count, device=GPU) % config.train.folds)

    noise = torch.randn(2 * count, networks.num_latents, device=GPU)
    batches = itertools.cycle([[Batch(pool(), pool(), noise)]])

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=variant.startswith("bf16")):
            vaal_step(vae, discriminators, batches, LossWeights(), Updates())

    return step


def report(name: str, step: Callable[[], object], count: int, most: float, num_steps: int) -> None:
    step()
    total, duration = operations(step), seconds(step, num_steps)
    rate = total / duration
    print(
        f"{name:<44} {count / duration:10,.0f} images/s  {duration * 1e3:8.2f} ms  {rate / 1e12:6.1f} TFLOP/s  "
        f"{rate / most:6.1%} of the peak",
        flush=True,
    )


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("gpu_speed: there is no GPU")
    most = peak()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; peak {most / 1e12:.0f} TFLOP/s; base")
    for size in (32,) if is_small() else (32, 224):
        for variant in VARIANTS:
            with arithmetic(variant):
                step, count = scoring(size, variant)
                report(f"score, {size} px, {variant}", step, count, most, 3)
        for count in BATCHES[size]:
            for variant in VARIANTS[:-1]:
                with arithmetic(variant):
                    step = training(size, count, variant)
                    report(f"train, {size} px, 2 x {count}, {variant}", step, 2 * count, most, 5)
    print(f"target at 224 px: at least {TARGET:.0%} of the peak in bf16")


if __name__ == "__main__":
    main()
