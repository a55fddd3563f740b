"""The end of training: latents are cached, and discriminators and centres are fitted to them."""

from collections.abc import Iterable
from itertools import islice

import torch

from engine.models.centring import make_centres, save_centres
from engine.models.front import Front
from engine.training.batches import Decoded, decoded, to_images, unlabelled_images
from engine.training.plan import TrainingPlan
from vaal.assembly import Networks
from vaal.refit import Cached, refit

MOST_CACHED = 20_000
"""Unlabelled items to which discriminators and centres are fitted: a few at random of all shards."""
BATCH = 256


@torch.inference_mode()
def refitted(plan: TrainingPlan, networks: Networks, front: Front) -> tuple[Networks, dict[str, str]]:
    """The networks with discriminators that are fitted to their latents, where the configuration says so; writes the
    centres of the round's clusters. Returns SHA-256 by the name of a file.

    The same for any number of workers, and after any interruption: everything is read again.
    """
    config, pool = plan.config, plan.pool
    latent_NZ, unlabelled = _cached(plan, networks, front, unlabelled_images(pool, plan.deal, MOST_CACHED))
    if config.refits:
        positions = [position for position in plan.positions if not pool.is_held_out(*position[:2])]
        images = ((*positions[number][:2], image) for number, image in decoded(pool, positions))
        _, labelled = _cached(plan, networks, front, images)
        fitted = refit(labelled, unlabelled, config.train.folds)
        networks = networks._replace(discriminators=fitted).ready(front.device)
    centres = make_centres(latent_NZ, 2 * config.select.budget, config.train.seed + (pool.round << 32))
    return networks, save_centres(plan.folder, centres) if centres is not None else {}


def _cached(
    plan: TrainingPlan, networks: Networks, front: Front, images: Iterable[Decoded]
) -> tuple[torch.Tensor, Cached]:
    """The latents (N, Z) by which items are compared, and what discriminators see of them, on the CPU."""
    latents, means, folds = [], [], []
    left = iter(images)
    while part := list(islice(left, BATCH)):
        block = to_images(plan.pool, part)
        x_B = front(block.seen_N)
        latents.append(networks.latents(x_B).cpu())
        means.append(networks.means(x_B).cpu() if plan.config.refits else latents[-1])
        folds.append(torch.from_numpy(block.fold_N))
    if not folds:
        none = torch.empty(0, 1)
        return none, Cached(none, torch.empty(0, dtype=torch.int64))
    return torch.cat(latents), Cached(torch.cat(means), torch.cat(folds))
