"""The end of training: latents are cached, and everything is fitted to them that is fitted at once."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.models.centring import save_centres
from engine.models.fitting import MOST_FITTED, Seen, fit
from engine.models.front import Front
from engine.models.weights import score_function
from engine.pool.identity import ALONE
from engine.training.batches import Decoded, decoded, to_images, unlabelled_images
from engine.training.plan import TrainingPlan
from vaal.assembly import Networks
from vaal.calibration import Judged, adjust
from vaal.refit import Cached

BATCH = 256


class _Read(NamedTuple):
    """Items of one pool on the CPU: latents (N, Z); what discriminators see of them (N, D); folds (N,); the numbers of
    their groups (N,), None where each item is one; and by their own fold's network the logits, (N,) or, where nothing
    asks for them, none."""

    latent_NZ: Tensor
    mean_ND: Tensor
    fold_N: Tensor
    group_N: Tensor | None
    logit_N: Tensor | None

    def at(self, is_in_N: Tensor) -> "_Read":
        return _Read._make(None if values is None else values[is_in_N] for values in self)

    @property
    def seen(self) -> Seen:
        return Seen(self.latent_NZ, Cached(self.mean_ND, self.fold_N, self.group_N))

    @property
    def judged(self) -> Judged:
        assert self.logit_N is not None
        return Judged(self.logit_N, self.fold_N)


@torch.no_grad()
def fit_at_last(
    plan: TrainingPlan, networks: Networks, front: Front
) -> tuple[Networks, dict[str, str], dict[str, Any]]:
    """The networks with discriminators that are fitted at once, or those of the game calibrated; and on embeddings with
    the task learner; where the configuration has them. Writes the centres of the round's clusters. Returns also SHA-256
    of the files by name, and what the train manifest says of the task learner.

    The same for any number of workers, and after any interruption: everything is read again.
    """
    config, pool = plan.config, plan.pool
    labelled, trained, labels = None, None, list[str]()
    # Discriminators that are fitted have no use for what those of the game say.
    with_logits = config.calibrates
    if config.refits or front.length:
        items = list[tuple[str, str]]()
        labelled = _read(plan, networks, front, _labelled_images(plan, items), with_logits=with_logits)
        held_out = [pool.is_held_out(*item) for item in items]
        is_held_out_N = torch.tensor(held_out, dtype=torch.bool)
        trained = labelled.at(~is_held_out_N).seen
        labels = [plan.labels[item] for item, is_out in zip(items, held_out, strict=True) if not is_out]
    unlabelled = _read(plan, networks, front, _sample(plan), with_logits=with_logits)
    fitted = fit(config, pool.round, trained, unlabelled.seen, labels, plan.images_per_epoch)
    if fitted.discriminators is not None:
        networks = networks._replace(discriminators=fitted.discriminators)
    elif config.calibrates and labelled is not None and networks.discriminators is not None:
        # No discriminator has seen the items of its own fold; a single one none of those that are held out.
        judged = labelled.at(is_held_out_N) if pool.held_out else labelled
        adjust(list(networks.discriminators.folds), judged.judged, unlabelled.judged)
    if fitted.head is not None:
        networks = networks._replace(task=fitted.head)
    files = save_centres(plan.folder, fitted.centres) if fitted.centres is not None else {}
    return networks.ready(front.device), files, fitted.task


def _labelled_images(plan: TrainingPlan, items: list[tuple[str, str]]) -> Iterator[Decoded]:
    """The labelled images that decode, one at a time: all of them may not fit the memory. `items` gets their names."""
    for number, image in decoded(plan.pool, plan.positions):
        items.append(plan.positions[number][:2])
        yield (*items[-1], image)


def _sample(plan: TrainingPlan) -> Iterable[Decoded]:
    """Unlabelled images that no discriminator of their own fold has trained on; or those to train on."""
    if not plan.config.fits_at_once:
        return unlabelled_images(plan.pool, plan.deal, MOST_FITTED)
    everything = unlabelled_images(plan.pool._replace(held_out=0.0), plan.deal, MOST_FITTED)
    return (image for image in everything if not plan.pool.is_held_out(*image[:2]))


def _read(
    plan: TrainingPlan, networks: Networks, front: Front, images: Iterable[Decoded], *, with_logits: bool
) -> _Read:
    pool, left = plan.pool, iter(images)
    score = score_function(plan.config) if with_logits else None
    none, whole = torch.empty(0, networks.num_latents), torch.empty(0, dtype=torch.int64)
    parts = [_Read(none, none, whole, None if pool.groups == ALONE else whole, torch.empty(0) if score else None)]
    while part := list(islice(left, BATCH)):
        block = to_images(pool, part)
        fold_B, group_B = (None if values is None else torch.from_numpy(values) for values in block[1:])
        assert fold_B is not None
        x_B, logit_B = front(block.seen_N), None
        if score is None:
            latent_BZ = networks.latents(x_B)
        else:
            logit_B, latent_BZ = score(networks, x_B, fold_B.to(front.device))
            logit_B = logit_B.cpu()
        # On embeddings the latents are these, and not the VAE's.
        mean_BD = networks.means(x_B) if front.length else latent_BZ
        parts.append(_Read(latent_BZ.cpu(), mean_BD.cpu(), fold_B, group_B, logit_B))
    return _Read._make(_joined(values) for values in zip(*(parts[1:] or parts), strict=True))


def _joined(values: tuple[Tensor | None, ...]) -> Tensor | None:
    found = [part for part in values if part is not None]
    return torch.cat(found) if found else None
