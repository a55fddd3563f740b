"""The end of training: latents are cached, and everything is fitted to them that is fitted at once."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.models.centring import save_centres
from engine.models.fitting import Seen, fit
from engine.models.front import Front
from engine.models.summaries import fit_summaries, fitted_names
from engine.models.weights import score_function
from engine.pool.identity import ALONE
from engine.training.describing import Reader, describe, projection_of
from engine.training.labelled import Decoded
from engine.training.plan import TrainingPlan
from vaal.assembly import Networks
from vaal.calibration import Judged, adjust
from vaal.refit import Cached


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
    plan: TrainingPlan,
    networks: Networks,
    front: Front,
    classes: Sequence[str] = (),
    task_reader: Reader | None = None,
) -> tuple[Networks, dict[str, str], dict[str, Any]]:
    """The networks with discriminators that are fitted at once, or those of the game calibrated; on embeddings with the
    task learner; and with what acquisition functions keep; where the configuration has them. Writes the centres of the
    round's clusters. Returns also SHA-256 of the files by name, and what the train manifest says of the task learner.

    The same for any number of workers, and after any interruption: everything is read again.

    Args:
        classes: those of a task learner that is there already, in the order of its logits.
        task_reader: how it sees items, where it sees something else than the other networks.
    """
    config, pool = plan.config, plan.pool
    reader = Reader(pool, front.__call__)
    task_reader = task_reader or reader
    if not config.needs_method and not front.length:
        reader = task_reader if networks.task is not None else reader
        networks = networks._replace(projection=projection_of(plan, reader, networks.task))
    labelled, trained, labels = None, None, list[str]()
    # Discriminators that are fitted have no use for what those of the game say.
    with_logits = config.calibrates and config.needs_method
    if (config.refits and config.needs_method) or front.length:
        items = list[tuple[str, str]]()
        labelled = _read(plan, networks, reader, reader.labelled(plan, items), with_logits=with_logits)
        held_out = [pool.is_held_out(*item) for item in items]
        is_held_out_N = torch.tensor(held_out, dtype=torch.bool)
        trained = labelled.at(~is_held_out_N).seen
        labels = [plan.labels[item] for item, is_out in zip(items, held_out, strict=True) if not is_out]
    unlabelled = _read(plan, networks, reader, reader.sample(plan), with_logits=with_logits)
    fitted = fit(config, pool.round, trained, unlabelled.seen, labels, plan.images_per_epoch)
    if fitted.discriminators is not None:
        networks = networks._replace(discriminators=fitted.discriminators)
    elif with_logits and labelled is not None and networks.discriminators is not None:
        # No discriminator has seen the items of its own fold; a single one none of those that are held out.
        judged = labelled.at(is_held_out_N) if pool.held_out else labelled
        adjust(list(networks.discriminators.folds), judged.judged, unlabelled.judged)
    if fitted.head is not None:
        networks, classes = networks._replace(task=fitted.head), fitted.task["task"]["classes"]
    networks = networks.ready(front.device)
    if networks.task is not None and fitted_names(config):
        described = describe(plan, task_reader, networks.task)
        networks = networks._replace(summaries=fit_summaries(config, networks.task, list(classes), described))
    files = save_centres(plan.folder, fitted.centres) if fitted.centres is not None else {}
    return networks.ready(front.device), files, fitted.task


def _read(
    plan: TrainingPlan, networks: Networks, reader: Reader, images: Iterable[Decoded], *, with_logits: bool
) -> _Read:
    pool = plan.pool
    score = score_function(plan.config) if with_logits else None
    none, whole = torch.empty(0, networks.num_latents), torch.empty(0, dtype=torch.int64)
    parts = [_Read(none, none, whole, None if pool.groups == ALONE else whole, torch.empty(0) if score else None)]
    for x_B, block in reader.blocks(images):
        fold_B, group_B = (None if values is None else torch.from_numpy(values) for values in block[1:])
        assert fold_B is not None
        logit_B = None
        if score is None:
            latent_BZ = networks.latents(x_B)
        else:
            logit_B, latent_BZ = score(networks, x_B, fold_B.to(x_B.device))
            logit_B = logit_B.cpu()
        # On embeddings the latents are these, and not the VAE's.
        mean_BD = networks.means(x_B) if plan.config.sees_embeddings else latent_BZ
        parts.append(_Read(latent_BZ.cpu(), mean_BD.cpu(), fold_B, group_B, logit_B))
    return _Read._make(_joined(values) for values in zip(*(parts[1:] or parts), strict=True))


def _joined(values: tuple[Tensor | None, ...]) -> Tensor | None:
    found = [part for part in values if part is not None]
    return torch.cat(found) if found else None
