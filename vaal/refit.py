"""Discriminators straight on embeddings: cross-fitted logistic regressions, fitted at once, and calibrated.

On the latents of a VAE, whose dimensions mean little alone, linear discriminators find much less than perceptrons: see
`vaal.ensembles`.

Shape suffixes: N items, L labelled, U unlabelled ones, D units of an input, B batch, K folds.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaal.calibration import Judged, adjust, balanced, mean_loss, rescale
from vaal.logistic import SMALLEST_GRADIENT, Logistic

PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03)
"""l2 of the logistic regressions in units of the mean variance of an input, the strongest first."""


class Cached(NamedTuple):
    """Inputs of the discriminators for the items of one pool (N, D), float32; their folds (N,), int64; and random
    numbers that the items of a group share (N,), int64, None where each item is a group of its own."""

    x_ND: Tensor
    fold_N: Tensor
    group_N: Tensor | None = None


class FittedDiscriminators(nn.Module):
    """K linear discriminators in one module, on inputs of length D.

    A logit estimates the log density ratio of the labelled to the unlabelled pool.
    """

    def __init__(self, num_folds: int, length: int) -> None:
        super().__init__()
        self.num_latents = length
        self.folds = nn.ModuleList(nn.Linear(length, 1) for _ in range(num_folds))

    def forward(self, x_BD: Tensor) -> Tensor:
        """Labelled-logits (B, K), one column a discriminator."""
        return torch.cat([fold(x_BD) for fold in self.folds], dim=1)

    def features(self, x_BD: Tensor, fold_B: Tensor) -> Tensor:  # noqa: ARG002 - see `vaal.ablations`
        """The inputs themselves (B, D)."""
        return x_BD

    def classify(self, x_BD: Tensor) -> Tensor:
        """As `forward`."""
        logit_BK: Tensor = self(x_BD)
        return logit_BK


@torch.no_grad()
def refit(labelled: Cached, unlabelled: Cached, num_folds: int) -> FittedDiscriminators:
    """Discriminators of which each is fitted on the items of all folds but its own; with one fold, on all items.

    Both pools have the same weight, so that a logit of 0 means equally dense. One penalty for all folds, that with the
    least loss of the items out of fold; the penalty is the same for every unit, whose scales therefore count: those of
    `vaal.standardise`. Logits are then aligned over the folds and calibrated, see `vaal.calibration.adjust`. With one
    fold the groups are dealt into two for the penalty and the temperature; where all of a pool are in one of them, the
    penalty is the strongest and nothing is calibrated.

    The same for the same items in any order up to rounding. Raises ValueError if a pool has no item outside of a fold,
    or an input is not finite.
    """
    pools = [
        pool._replace(x_ND=pool.x_ND.detach().double().cpu(), fold_N=pool.fold_N.cpu())
        for pool in (labelled, unlabelled)
    ]
    judged, count = (pools, num_folds) if num_folds > 1 else ([_dealt(pool) for pool in pools], 2)
    if num_folds == 1 and not all(0 < int(pool.fold_N.sum()) < len(pool.fold_N) for pool in judged):
        # Nothing can be held out from one item, or from one group.
        whole = _logistic(pools)
        return _made([whole.layer(whole.fit(PENALTIES[0], tolerance=SMALLEST_GRADIENT)[0])])
    weight_NK = _weights(judged, count)
    variance = float(pools[1].x_ND.var(dim=0, correction=0).mean()) or 1.0
    logistic, layers, least, penalty = _logistic(judged), list[nn.Linear](), math.inf, PENALTIES[0]
    weight_KCE: Tensor | None = None
    for candidate in PENALTIES:
        # From the weights of the penalty before, of the same fold.
        weight_KCE = logistic.fit(candidate * variance, weight_NK, tolerance=SMALLEST_GRADIENT, start_KCE=weight_KCE)
        found = [logistic.layer(weight_CE) for weight_CE in weight_KCE]
        loss = mean_loss(*balanced(*(pool.logit_N for pool in _out_of_fold(found, judged))))
        if loss >= least:
            # The loss falls and then rises with a weaker penalty.
            break
        layers, least, penalty = found, loss, candidate
    factor = adjust(layers, *_out_of_fold(layers, judged))
    if num_folds == 1:
        layers = [logistic.layer(logistic.fit(penalty * variance, tolerance=SMALLEST_GRADIENT)[0])]
        rescale(layers[0], factor)
    return _made(layers)


def _made(layers: list[nn.Linear]) -> FittedDiscriminators:
    made = FittedDiscriminators(len(layers), layers[0].in_features)
    for fold, layer in zip(made.folds, layers, strict=True):
        fold.load_state_dict(layer.state_dict())
    return made.requires_grad_(False)


def _dealt(pool: Cached) -> Cached:
    """Dealt into two folds: a group by its number, the same in both pools; without groups the items in turn."""
    number_N = torch.arange(len(pool.fold_N)) if pool.group_N is None else pool.group_N.cpu()
    return pool._replace(fold_N=number_N % 2)


def _weights(pools: list[Cached], count: int) -> Tensor:
    """The weights of all items (N, K), 0 in their own fold; each pool has half of those of a regression."""
    parts = []
    for pool in pools:
        is_outside_NK = pool.fold_N[:, None] != torch.arange(count)
        items_K = is_outside_NK.sum(dim=0)
        if not items_K.all():
            raise ValueError(f"a pool has no item outside of fold {int(items_K.argmin())}")
        parts.append(is_outside_NK.double() / items_K / 2)
    return torch.cat(parts)


def _logistic(pools: list[Cached]) -> Logistic:
    """Regressions that tell the labelled items from the others."""
    counts = [len(pool.fold_N) for pool in pools]
    label_N = torch.cat([torch.full((count,), kind) for count, kind in zip(counts, (1, 0), strict=True)])
    weight_N = torch.cat([torch.full((count,), 0.5 / count, dtype=torch.float64) for count in counts])
    return Logistic(torch.cat([pool.x_ND for pool in pools]), label_N, 2, weight_N)


def _out_of_fold(layers: list[nn.Linear], pools: list[Cached]) -> list[Judged]:
    """Both pools, with the logit of each item by the discriminator of its own fold, (L,) and (U,) float64."""
    found = []
    for pool in pools:
        logit_NK = torch.cat([layer(pool.x_ND) for layer in layers], dim=1)
        found.append(Judged(logit_NK.gather(1, pool.fold_N[:, None]).squeeze(1), pool.fold_N))
    return found
