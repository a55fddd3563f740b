"""A timed trial of a few hundred real items, for rounds of which no earlier one says how long they take."""

import time
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config.options import CampaignConfig
from engine.models.front import front_of
from engine.models.task_models import load_task
from engine.models.weights import make_classifier, make_networks, to_input
from engine.pool.images import DecodeError, decode
from engine.pool.items import read_shard
from engine.pool.shard import Shard
from engine.pool.sight import image_of
from vaal.assembly import Networks
from vaal.losses import LossWeights
from vaal.step import Batch, PoolBatch, Updates, vaal_step

TRIAL_ITEMS = 256
BATCH = 64
"""Images in a forward pass of the trial, and of each pool in a step: its time is scaled to train.batch_size."""
TIMED_STEPS = 2
_TASK_CLASSES = 10


class Trial(NamedTuple):
    """What items cost one process, on average: bytes in the shard; seconds to read, decode and score one; seconds of an
    iteration of VAAL, and of an update of the task learner, 0 where there is none. `weight_bytes` are those of the
    networks in fp32, and `num_latents` a latent's components, 0 where they are not known before training."""

    items: int
    bytes_per_item: float
    seconds_per_item: float
    seconds_per_step: float
    seconds_per_task_step: float
    weight_bytes: int
    num_latents: int


def run_trial(config: CampaignConfig, shard: Shard, device: str) -> Trial:
    """Read the first items of a shard and time the networks, with random weights, on them, on "cpu" or "cuda".

    Raises ShardError if the shard cannot be read, ConfigError or InputError if an encoder or task.model cannot be used.
    """
    begin, num_bytes, pixels = time.perf_counter(), 0, list[NDArray[np.uint8]]()
    sees_vectors = config.sees_embeddings and not config.encoder.model
    num_items = 0
    for item in islice(read_shard(shard, image_of(config), config.embedding_member), TRIAL_ITEMS):
        num_items, num_bytes = num_items + 1, item.offset + item.size_bytes
        try:
            pixels += [] if sees_vectors or not item.data else [decode(item.data, image_of(config))]
        except DecodeError:
            continue
    read_seconds = time.perf_counter() - begin
    networks = Networks() if config.sees_embeddings else make_networks(config)
    modules = [module.to(device) for module in (networks.vae, networks.discriminators) if module is not None]
    count = sum(parameter.numel() for module in modules for parameter in module.parameters())
    scored, step, task_step = _times(config, networks, np.stack(pixels), device) if pixels else (0.0, 0.0, 0.0)
    each = max(1, num_items)
    return Trial(
        num_items, num_bytes / each, read_seconds / each + scored, step, task_step, 4 * count,
        networks.num_latents if modules else 0,
    )  # fmt: skip


def _times(
    config: CampaignConfig, networks: Networks, pixels_N: NDArray[np.uint8], device: str
) -> tuple[float, float, float]:
    """Seconds to score an item, of an iteration, and of an update of the task learner."""
    # A scorer has one CPU, a training worker all that it can have.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        scored = _timed(lambda: _score(config, networks, pixels_N, device), device) / len(pixels_N)
    finally:
        torch.set_num_threads(threads)
    if config.sees_embeddings:
        return scored, 0.0, 0.0
    x_B = to_input(pixels_N[:BATCH], torch.device(device))
    scale = config.train.batch_size / len(x_B)
    return scored, scale * _step_seconds(config, networks, x_B), scale * _task_seconds(config, x_B)


@torch.inference_mode()
def _score(config: CampaignConfig, networks: Networks, pixels_N: NDArray[np.uint8], device: str) -> None:
    """As scoring does, but for what acquisition functions add to a forward pass."""
    to = torch.device(device)
    if config.sees_embeddings:
        front_of(config, to).vectors(pixels_N)
        return
    task = load_task(config, to).task if config.task.model else None
    for begin in range(0, len(pixels_N), BATCH):
        x_B = to_input(pixels_N[begin : begin + BATCH], to)
        seen_B = networks.vae.eval().encode(x_B)[0] if networks.vae is not None else x_B
        if networks.discriminators is not None:
            networks.discriminators.eval()(seen_B)
        if task is not None:
            task(torch.nn.functional.interpolate(x_B, (config.task.size,) * 2) if config.task.size else x_B)


class _Plain:
    """A module and its optimizer as `vaal.step.Updater`."""

    def __init__(self, module: Any) -> None:
        self.module, self._optimizer = module, torch.optim.Adam(module.parameters())

    def __call__(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)

    def apply(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)
        self._optimizer.step()
        self._optimizer.zero_grad()


def _step_seconds(config: CampaignConfig, networks: Networks, x_B: Tensor) -> float:
    """Of an iteration on so many images of each pool; 0 where VAAL trains nothing in steps."""
    vae, discriminators = (
        None if module is None else _Plain(module) for module in (networks.vae, networks.discriminators)
    )
    if not (vae or discriminators) or config.fits_at_once:
        return 0.0
    folds_B = torch.arange(len(x_B), device=x_B.device) % config.train.folds
    size = networks.num_latents if networks.vae is not None else 0
    part = Batch(PoolBatch(x_B, folds_B), PoolBatch(x_B, folds_B), torch.randn(2 * len(x_B), size, device=x_B.device))
    source: Iterator[list[Batch]] = repeat([part])
    updates = Updates(config.train.vae_steps, config.train.discriminator_steps)

    def step() -> None:
        vaal_step(vae, discriminators, source, LossWeights(), updates)

    step()
    return sum(_timed(step, x_B.device.type) for _ in range(TIMED_STEPS)) / TIMED_STEPS


def _task_seconds(config: CampaignConfig, x_B: Tensor) -> float:
    if not config.has_task or config.task.model:
        return 0.0
    task = _Plain(make_classifier(config, _TASK_CLASSES).to(x_B.device))

    def step() -> None:
        task.apply(task(x_B).square().mean())

    step()
    return sum(_timed(step, x_B.device.type) for _ in range(TIMED_STEPS)) / TIMED_STEPS


def _timed(work: Callable[[], object], device: str) -> float:
    begin = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin
