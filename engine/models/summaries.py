"""What acquisition functions are fitted to at the end of training, and what they keep of it."""

import copy
import pkgutil
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.config.options import CampaignConfig
from engine.errors import VaalError
from engine.models.task_answers import answers_of
from vaal.acquisition import ACQUISITIONS
from vaal.acquisition.reference import Reference
from vaal.acquisition.summary import Summary
from vaal.acquisition.view import Settings
from vaal.linear_head import NUM_FOLDS
from vaal.refit import Cached
from vaal.task.model import Task


class Parts(NamedTuple):
    """What a head answers for, where that is not the items: of N pixels of masks the features (N, D), the classes (N,)
    int64, and the numbers of their items (N,) int64."""

    feature_ND: Tensor
    answer_N: Tensor
    item_N: Tensor


class Described(NamedTuple):
    """Features of the task learner: of L labelled images (L, D) with their labels, folds and groups (`cached`, whose
    inputs do not matter here), and of a random sample of the pool (R, D), which stands for `num_pool` images. Of maps
    also the labelled images' mean logits (L, C), and parts of them."""

    feature_LD: Tensor
    labels: Sequence[str]
    cached: Cached
    feature_RD: Tensor
    num_pool: int
    logit_LC: Tensor | None = None
    parts: Parts | None = None


def settings_of(config: CampaignConfig) -> Settings:
    """What acquisition functions take from a configuration."""
    options = config.score
    return Settings(
        config.train.seed,
        options.dropout_passes,
        options.dropout_rate,
        options.reduction,
        options.gradient_norms,
        options.perturbation,
    )


def fitted_names(config: CampaignConfig) -> list[str]:
    """The acquisition functions of a configuration that are fitted, where there is a task learner."""
    return [name for name in config.acquisitions(has_task=True) if ACQUISITIONS[name].fit]


@torch.no_grad()
def fit_summaries(config: CampaignConfig, task: Task, classes: list[str], described: Described) -> dict[str, Summary]:
    """What the acquisition functions of a configuration keep, by name; the same for the same images.

    Args:
        classes: in the order of the logits.

    Raises VaalError if one of them cannot be fitted to these images, or as `engine.models.task_answers.answers_of`.
    """
    names, fitted = fitted_names(config), dict[str, dict[str, Tensor]]()
    if not names:
        return {}
    # What is fitted does not depend on the device of the networks.
    task = copy.deepcopy(task).cpu().eval()
    feature_LD, feature_RD = described.feature_LD.cpu().float(), described.feature_RD.cpu().float()
    # Of images without finite features nothing can be fitted; scoring quarantines them.
    kept_L, kept_R = _finite_rows(feature_LD, "labelled images"), _finite_rows(feature_RD, "images of the pool")
    feature_LD, feature_RD = feature_LD[kept_L], feature_RD[kept_R]
    fold_L = folds_of(described.cached, config.train.folds, config.train.seed)[kept_L]
    if described.logit_LC is None or described.parts is None:
        # The items themselves.
        answer_N = answers_of(task.kind, [described.labels[row] for row in kept_L.tolist()], classes).answer_N
        logit_LC, parts = task.head(feature_LD), Parts(feature_LD, answer_N, torch.arange(len(feature_LD)))
    else:
        logit_LC, parts = described.logit_LC[kept_L], _parts_of(described.parts, kept_L)
    reference = Reference(
        task, feature_LD, logit_LC, fold_L, parts.feature_ND, parts.answer_N, fold_L[parts.item_N], feature_RD,
        described.num_pool, settings_of(config),
    )  # fmt: skip
    for name in names:
        # Several may be fitted alike.
        place = ACQUISITIONS[name].fit
        if place not in fitted:
            try:
                with torch.enable_grad():
                    fitted[place] = pkgutil.resolve_name(place)(reference)
            except ValueError as error:
                raise VaalError(f"score.acquisition={name}: {error}; leave it out, or label more") from error
    return {
        name: Summary({key: value.detach() for key, value in fitted[ACQUISITIONS[name].fit].items()}) for name in names
    }


def _finite_rows(feature_ND: Tensor, items: str) -> Tensor:
    rows = torch.nonzero(torch.isfinite(feature_ND).all(dim=1)).flatten()
    if len(feature_ND) and not len(rows):
        raise VaalError(f"the task learner's features of all {len(feature_ND)} {items} are not finite; give another")
    return rows


def _parts_of(parts: Parts, kept_L: Tensor) -> Parts:
    """The parts of these items, numbered from 0."""
    is_kept_N = torch.isin(parts.item_N, kept_L)
    item_N = torch.searchsorted(kept_L, parts.item_N[is_kept_N])
    return Parts(parts.feature_ND[is_kept_N], parts.answer_N[is_kept_N], item_N)


def folds_of(labelled: Cached, num_folds: int, seed: int) -> Tensor:
    """Folds (L,) int64 of labelled images that keep groups together: those of the discriminators, or dealt at random
    where these have one."""
    if num_folds > 1:
        return labelled.fold_N
    if labelled.group_N is not None:
        place_N = np.unique(labelled.group_N.numpy(), return_inverse=True)[1]
    else:
        place_N = np.random.default_rng((seed, 7)).permutation(len(labelled.fold_N))
    return torch.from_numpy(place_N.astype(np.int64) % NUM_FOLDS)
