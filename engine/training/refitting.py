"""The end of training: latents are cached, and everything is fitted to them that is fitted at once."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

import torch

from engine.models.centring import make_centres, save_centres
from engine.models.front import Front
from engine.models.weights import require_classes, score_function
from engine.training.batches import Decoded, decoded, to_images, unlabelled_images
from engine.training.plan import TrainingPlan
from vaal.assembly import Networks
from vaal.calibration import Judged, adjust
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
    """The networks with discriminators that are fitted at once, or those of the game calibrated; and on embeddings with
    the task learner; where the configuration has them. Writes the centres of the round's clusters.

    The same for any number of workers, and after any interruption: everything is read again.
    """
    config, pool = plan.config, plan.pool
    unlabelled = _cached(plan, networks, front, _sample(plan))
    centres = make_centres(unlabelled.latent_NZ, 2 * config.select.budget, config.train.seed + (pool.round << 32))
    files = save_centres(plan.folder, centres) if centres is not None else {}
    if not config.refits and not front.length:
        return Fitted(networks, files)
    found = list(decoded(pool, plan.positions))
    items = [plan.positions[n][:2] for n, _ in found]
    labelled = _cached(plan, networks, front, ((*item, image) for item, (_, image) in zip(items, found, strict=True)))
    is_held_out_N = torch.tensor([pool.is_held_out(*item) for item in items], dtype=torch.bool)
    if config.fits_at_once:
        trained, other = (Cached(part.latent_NZ, part.fold_N) for part in (labelled.at(~is_held_out_N), unlabelled))
        networks = networks._replace(discriminators=refit(trained, other, config.train.folds))
    elif config.refits and networks.discriminators is not None:
        judged = labelled.at(is_held_out_N == (pool.held_out > 0))
        pools = (Judged(part.logit_N, part.fold_N) for part in (judged, unlabelled))
        adjust(list(networks.discriminators.folds), *pools)
    names, task = [plan.labels[item] for item in items], None
    if front.length and config.has_task and (config.train.task != "auto" or _are_classes(names)):
        classes = sorted(set(names))
        require_classes(len(classes))
        label_N = torch.tensor([classes.index(name) for name in names])
        fitted = fit_linear_head(labelled.latent_NZ, label_N, len(classes), config.train.seed)
        networks = networks._replace(task=fitted.head)
        task = {"classes": classes, "held_out_accuracy": fitted.held_out_accuracy}
    return Fitted(networks.ready(front.device), files, task)


def _are_classes(names: list[str]) -> bool:
    """Whether labels look like classes: at least two, few, and each of two images on average."""
    return 2 <= len(set(names)) <= min(MOST_CLASSES, len(names) // 2)


class _Seen(NamedTuple):
    """Items of one pool on the CPU: latents (N, Z), the logit (N,) of each by its own fold, and folds (N,)."""

    latent_NZ: torch.Tensor
    logit_N: torch.Tensor
    fold_N: torch.Tensor

    def at(self, is_in_N: torch.Tensor) -> "_Seen":
        return _Seen(*(values[is_in_N] for values in self))


def _sample(plan: TrainingPlan) -> Iterable[Decoded]:
    """Unlabelled images that no discriminator of their own fold has trained on; or those to train on."""
    if not plan.config.fits_at_once:
        return unlabelled_images(plan.pool, plan.deal, MOST_CACHED)
    everything = unlabelled_images(plan.pool._replace(held_out=0.0), plan.deal, MOST_CACHED)
    return (image for image in everything if not plan.pool.is_held_out(*image[:2]))


def _cached(plan: TrainingPlan, networks: Networks, front: Front, images: Iterable[Decoded]) -> _Seen:
    score, left = score_function(plan.config), iter(images)
    parts = [_Seen(torch.empty(0, networks.num_latents), torch.empty(0), torch.empty(0, dtype=torch.int64))]
    while part := list(islice(left, BATCH)):
        block = to_images(plan.pool, part)
        fold_B = torch.from_numpy(block.fold_N)
        logit_B, latent_BZ = score(networks, front(block.seen_N), fold_B.to(front.device))
        parts.append(_Seen(latent_BZ.cpu(), logit_B.cpu(), fold_B))
    return _Seen(*(torch.cat(values) for values in zip(*(parts[1:] or parts), strict=True)))
