"""The end of training: latents are cached, and everything is fitted to them that is fitted at once."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

import torch

from engine.models.centring import make_centres, sample_of_pool, save_centres
from engine.models.front import Front
from engine.models.weights import require_classes
from engine.training.batches import Decoded, decoded, to_images, unlabelled_images
from engine.training.plan import TrainingPlan
from vaal.assembly import Networks
from vaal.linear_head import fit_linear_head
from vaal.refit import Cached, refit

MOST_CACHED = 20_000
"""Unlabelled items to which discriminators and centres are fitted: a few at random of all shards."""
MOST_CLASSES = 1000
"""With more values, labels are taken for something else than classes."""
BATCH = 256


class Fitted(NamedTuple):
    """The networks; SHA-256 of the files that were written, by name; what the train manifest says of the task learner,
    None without one on embeddings."""

    networks: Networks
    files: dict[str, str]
    task: dict[str, Any] | None = None


@torch.inference_mode()
def fit_at_last(plan: TrainingPlan, networks: Networks, front: Front) -> Fitted:
    """The networks with the discriminators of the last refit, and on embeddings with the task learner, where the
    configuration has them. Writes the centres of the round's clusters.

    The same for any number of workers, and after any interruption: everything is read again.
    """
    config, pool, is_fitting = plan.config, plan.pool, plan.config.refits or front.length
    unlabelled_NZ, unlabelled = _cached(plan, networks, front, unlabelled_images(pool, plan.deal, MOST_CACHED))
    positions = [position for position in plan.positions if is_fitting and not pool.is_held_out(*position[:2])]
    found = list(decoded(pool, positions))
    latent_NZ, labelled = _cached(plan, networks, front, ((*positions[n][:2], image) for n, image in found))
    seed = config.train.seed + (pool.round << 32)
    sample_NZ = sample_of_pool(unlabelled_NZ, latent_NZ, plan.images_per_epoch, seed)
    centres = make_centres(sample_NZ, 2 * config.select.budget, seed)
    files = save_centres(plan.folder, centres) if centres is not None else {}
    if not is_fitting:
        return Fitted(networks, files)
    if config.refits:
        networks = networks._replace(discriminators=refit(labelled, unlabelled, config.train.folds))
    names, task = [plan.labels[positions[n][:2]] for n, _ in found], None
    if front.length and config.has_task and (config.train.task != "auto" or _are_classes(names)):
        classes = sorted(set(names))
        require_classes(len(classes))
        label_N = torch.tensor([classes.index(name) for name in names])
        fitted = fit_linear_head(latent_NZ, label_N, len(classes), config.train.seed)
        networks = networks._replace(task=fitted.head)
        task = {"classes": classes, "held_out_accuracy": fitted.held_out_accuracy}
    return Fitted(networks.ready(front.device), files, task)


def _are_classes(names: list[str]) -> bool:
    """Whether labels look like classes: at least two, few, and each of two images on average."""
    return 2 <= len(set(names)) <= min(MOST_CLASSES, len(names) // 2)


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
