"""The end of training: latents are cached, and everything is fitted to them that is fitted at once."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch

from engine.models.centring import save_centres
from engine.models.fitting import MOST_FITTED, Seen, fit
from engine.models.front import Front
from engine.training.batches import Decoded, decoded, to_images, unlabelled_images
from engine.training.plan import TrainingPlan
from vaal.assembly import Networks
from vaal.refit import Cached

BATCH = 256


@torch.no_grad()
def fit_at_last(
    plan: TrainingPlan, networks: Networks, front: Front
) -> tuple[Networks, dict[str, str], dict[str, Any]]:
    """The networks with the discriminators of the last refit, and on embeddings with the task learner, where the
    configuration has them. Writes the centres of the round's clusters. Returns also SHA-256 of the files by name, and
    what the train manifest says of the task learner.

    The same for any number of workers, and after any interruption: everything is read again.
    """
    config, pool = plan.config, plan.pool
    labelled, labels = None, list[str]()
    if config.refits or front.length:
        positions = [position for position in plan.positions if not pool.is_held_out(*position[:2])]
        found = list(decoded(pool, positions))
        labels = [plan.labels[positions[n][:2]] for n, _ in found]
        labelled = _seen(plan, networks, front, ((*positions[n][:2], image) for n, image in found))
    unlabelled = _seen(plan, networks, front, unlabelled_images(pool, plan.deal, MOST_FITTED))
    fitted = fit(config, pool.round, labelled, unlabelled, labels)
    if fitted.discriminators is not None:
        networks = networks._replace(discriminators=fitted.discriminators)
    if fitted.head is not None:
        networks = networks._replace(task=fitted.head)
    files = save_centres(plan.folder, fitted.centres) if fitted.centres is not None else {}
    return networks.ready(front.device), files, fitted.task


def _seen(plan: TrainingPlan, networks: Networks, front: Front, images: Iterable[Decoded]) -> Seen:
    """The latents of these images and what discriminators see of them, on the CPU."""
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
        return Seen(none, Cached(none, torch.empty(0, dtype=torch.int64)))
    return Seen(torch.cat(latents), Cached(torch.cat(means), torch.cat(folds)))
