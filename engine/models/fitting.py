"""What is fitted at once to the latents of a round, whoever cached them: discriminators, task learner and centres."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.config.options import CampaignConfig
from engine.models.centring import make_centres, sample_of_pool
from engine.models.task_answers import answers_of
from engine.models.weights import shape_of
from vaal.centres import Centres
from vaal.ensembles import EnsembleDiscriminators, refit_ensembles
from vaal.linear_head import NUM_FOLDS, fit_label_head, fit_linear_head
from vaal.refit import Cached, FittedDiscriminators, refit
from vaal.task.model import Task

MOST_FITTED = 20_000
"""Unlabelled items to which discriminators and centres are fitted: a few at random of all shards."""
MOST_CLASSES = 1000
"""With more values, labels are taken for something else than classes."""
LEAST_SHARED = 0.9
"""Share of the labelled images whose label another one has too; with fewer, labels are notes and no classes."""


class Seen(NamedTuple):
    """Items of one pool: their latents (N, Z), by which they are compared, and what discriminators see of them."""

    latent_NZ: Tensor
    cached: Cached


class Fitted(NamedTuple):
    """The discriminators, None where those of the game stay; the task learner, and what the train manifest says of it,
    None and empty without one on embeddings; the centres of the round's clusters, None if there can be none."""

    discriminators: FittedDiscriminators | EnsembleDiscriminators | None
    head: Task | None
    task: dict[str, Any]
    centres: Centres | None


def fit(
    config: CampaignConfig,
    round_number: int,
    labelled: Seen | None,
    unlabelled: Seen,
    labels: Sequence[str],
    num_unlabelled: int = 0,
) -> Fitted:
    """Fit what the configuration has to a sample of the unlabelled pool and to what is labelled, with its labels.

    `labelled` is None where only centres are wanted; the sample is of `num_unlabelled` items, 0 if it is all. The same
    for the same items. Raises as `engine.models.task_answers.answers_of`.
    """
    seed = config.train.seed + (round_number << 32)
    kind = config.task_kind
    sample_NZ = unlabelled.latent_NZ
    if labelled is not None:
        sample_NZ = sample_of_pool(sample_NZ, labelled.latent_NZ, num_unlabelled, seed)
    centres = make_centres(sample_NZ, 2 * config.select.budget, seed)
    if labelled is None:
        return Fitted(None, None, {}, centres)
    found: FittedDiscriminators | EnsembleDiscriminators | None = None
    if not config.needs_method:
        pass
    elif config.fits_at_once:
        found = refit(labelled.cached, unlabelled.cached, config.train.folds)
    elif config.refits_ensembles:
        found = refit_ensembles(labelled.cached, unlabelled.cached, config.train.folds, shape_of(config), seed)
    if kind is None or not config.sees_embeddings or (config.train.task == "auto" and not _are_classes(labels)):
        return Fitted(found, None, {}, centres)
    classes, answer_N = answers_of(kind, labels, config.task_classes)
    with torch.enable_grad():
        fold_N = _folds_of_groups(labelled.cached, config.train.folds)
        if kind == "labels":
            fitted = fit_label_head(labelled.latent_NZ, answer_N, config.train.seed, fold_N)
        else:
            fitted = fit_linear_head(labelled.latent_NZ, answer_N, len(classes), config.train.seed, fold_N)
    task = {"classes": classes, "held_out_accuracy": fitted.held_out_accuracy}
    return Fitted(found, Task(fitted.head, kind, unit_C=(1.0,)).eval(), {"task": task}, centres)


def _folds_of_groups(labelled: Cached, num_folds: int) -> Tensor | None:
    """Folds of the task learner that keep groups together: those of the discriminators, or dealt where these have one.
    None where there are no groups to keep together, or only one."""
    if labelled.group_N is None:
        return None
    if num_folds > 1:
        return labelled.fold_N
    numbers, place_N = np.unique(labelled.group_N.numpy(), return_inverse=True)
    return torch.from_numpy(place_N % NUM_FOLDS) if len(numbers) > 1 else None


def _are_classes(labels: Sequence[str]) -> bool:
    """Whether labels look like classes: at least two, few, and most images share theirs with another."""
    counts = Counter(labels)
    shared = sum(count for count in counts.values() if count > 1)
    return 2 <= len(counts) <= MOST_CLASSES and shared >= LEAST_SHARED * len(labels)
