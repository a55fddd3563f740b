"""Training without Ray and DeepSpeed: one process, plain PyTorch, and everything else as the engine does it."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from engine.campaign.folder import Campaign
from engine.models.front import Front
from engine.models.weights import Networks, make_networks, score_function, to_input
from engine.pool.identity import fold_of
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.training.batches import Batches, prefetched
from engine.training.judging import fit_centroid, judge
from engine.training.labelled import Labelled, Part, as_seen, cache_labelled
from engine.training.plan import TrainingPlan, augment_of, phase_of, plan_training
from engine.training.refitting import fit_at_last
from tests.updater import OptimizerUpdater
from vaal.step import Batch, MemorisationGuard, PoolBatch, vaal_step

CPU = torch.device("cpu")
FRONT = Front(CPU)
OBSERVED_STEPS = 10


class Learnt(NamedTuple):
    """Trained networks in eval mode, and what the train stage's manifest would say of them."""

    networks: Networks
    entries: dict[str, Any]
    plan: TrainingPlan


def leave() -> NoReturn:
    """End a process that ran DeepSpeed over gloo, with success.

    Torn down as usual, ZeRO 3's threads now and then end it with "terminate called without an active exception".
    """
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)


def positions_of(campaign: Campaign) -> list[Any]:
    return list(plan_training(campaign).positions)


def batches_of(
    plan: TrainingPlan, labelled: Labelled, part: Part, num_latents: int, state: dict[str, Any] | None = None
) -> Batches:
    sizes = (plan.config.train.batch_size, plan.config.train.gradient_accumulation, num_latents)
    batches = Batches(plan.pool, labelled, plan.deal, part, sizes, state)
    batches.augment = augment_of(plan.config)
    return batches


def labelled_of(plan: TrainingPlan, campaign: Campaign, part: Part, file: Path) -> Labelled:
    num_streams = plan.deal.num_streams
    return cache_labelled(
        plan.pool, positions_of(campaign), part.streams(num_streams), num_streams, as_seen(plan.pool, file)
    )


def to_batch(part: Any) -> Batch:
    pools = [
        PoolBatch(to_input(images.seen_N, CPU), torch.from_numpy(images.fold_N))
        for images in (part.labelled, part.unlabelled)
    ]
    return Batch(pools[0], pools[1], torch.from_numpy(part.noise_NZ), part.weight)


def optimize(
    plan: TrainingPlan, campaign: Campaign, networks: Networks, *, guarded: bool = True,
    on_step: Callable[[int, Any], None] = lambda *_: None,
) -> None:  # fmt: skip
    """Train the networks in place as the engine does, with one worker."""
    train = plan.config.train
    vae, discriminators = (
        module and OptimizerUpdater(
            module, torch.optim.Adam(module.parameters(), lr=train.learning_rate),
            train.gradient_accumulation, train.gradient_clipping,
        )
        for module in networks[:2]
    )  # fmt: skip
    guard, seen = MemorisationGuard(), []
    with tempfile.TemporaryDirectory() as scratch:
        labelled = labelled_of(plan, campaign, Part(0, 1), Path(scratch) / "labelled")
        source = prefetched(batches_of(plan, labelled, Part(0, 1), networks.num_latents))
        feed = ([to_batch(part) for part in parts] for parts, _ in source)
        for step in range(plan.num_steps):
            updates, has_discriminators = phase_of(plan, step, is_holding=guard.is_holding)
            losses = vaal_step(vae, discriminators if has_discriminators else None, feed, plan.weights, updates)
            on_step(step, losses)
            if losses.discriminator is not None and losses.held_out is not None:
                seen.append((float(losses.discriminator), float(losses.held_out)))
            if guarded and (step + 1) % OBSERVED_STEPS == 0 and seen:
                guard.observe(*np.mean(seen[-OBSERVED_STEPS:], axis=0), train.folds)
        source.close()


def learn(campaign: Campaign, *, guarded: bool = True, num_threads: int = 1) -> Learnt:
    """Train as the engine does, with one worker, and judge the networks.

    For images of 8 px a second thread brings little, and on a machine that does something else it costs much.
    """
    plan, networks = plan_training(campaign), make_networks(campaign.config)
    num_before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        optimize(plan, campaign, networks, guarded=guarded)
        networks, positions = networks.ready(), positions_of(campaign)
        fit_centroid(networks, plan.pool, positions, FRONT)
        networks, *_ = fit_at_last(plan, networks, FRONT)
        return Learnt(networks, judge(plan, networks, positions, FRONT), plan)
    finally:
        torch.set_num_threads(num_before)


def share_of_picks(learnt: Learnt, budget: int, is_wanted: Callable[[str, str], bool]) -> float:
    """Of the `budget` unlabelled items with the lowest scores, the share that is wanted."""
    plan = learnt.plan
    scores, wanted = [], []
    for shard in plan.pool.shards:
        items = [i for i in read_shard(shard, plan.pool.sight.image) if (shard.shard, i.key) not in plan.pool.labelled]
        image = plan.pool.sight.image
        pixels = np.stack([decode(i.data, image) for i in items])
        folds = torch.tensor([fold_of(shard.shard, i.key, plan.pool.num_folds) for i in items])
        parts = torch.arange(len(items)).split(256)
        inputs = ((to_input(pixels[part.numpy()], CPU), folds[part]) for part in parts)
        scores += [score_function(plan.config)(learnt.networks, *part)[0].numpy() for part in inputs]
        wanted += [is_wanted(shard.shard, i.key) for i in items]
    order = np.argsort(np.concatenate(scores), kind="stable")[:budget]
    return float(np.array(wanted)[order].mean())
