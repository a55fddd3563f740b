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
from vaal.logistic import fit_logistic

PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03)
"""l2 of the logistic regressions in units of the mean variance of an input, the strongest first."""
ROUGH = 1e-4
"""Tolerance of a fit: far below what the items leave open."""


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
        return _made([_fit(pools, -1, PENALTIES[0])], pools[0].x_ND.shape[1])
    variance = float(pools[1].x_ND.var(dim=0, correction=0).mean()) or 1.0
    layers, least, penalty = list[nn.Linear](), math.inf, PENALTIES[0]
    for candidate in PENALTIES:
        found = [_fit(judged, number, candidate * variance) for number in range(count)]
        loss = mean_loss(*balanced(*(pool.logit_N for pool in _out_of_fold(found, judged))))
        if loss >= least:
            # The loss falls and then rises with a weaker penalty.
            break
        layers, least, penalty = found, loss, candidate
    factor = adjust(layers, *_out_of_fold(layers, judged))
    if num_folds == 1:
        layers = [_fit(pools, -1, penalty * variance)]
        rescale(layers[0], factor)
    return _made(layers, pools[0].x_ND.shape[1])


def _made(layers: list[nn.Linear], length: int) -> FittedDiscriminators:
    made = FittedDiscriminators(len(layers), length)
    for fold, layer in zip(made.folds, layers, strict=True):
        fold.load_state_dict(layer.state_dict())
    return made.requires_grad_(False)


def _dealt(pool: Cached) -> Cached:
    """Dealt into two folds: a group by its number, the same in both pools; without groups the items in turn."""
    number_N = torch.arange(len(pool.fold_N)) if pool.group_N is None else pool.group_N.cpu()
    return pool._replace(fold_N=number_N % 2)


def _fit(pools: list[Cached], number: int, l2: float) -> nn.Linear:
    """On the items outside of fold `number`."""
    parts = [pool.x_ND[pool.fold_N != number] for pool in pools]
    if not all(map(len, parts)):
        raise ValueError(f"a pool has no item outside of fold {number}")
    label_N = torch.cat([torch.full((len(part),), kind) for part, kind in zip(parts, (1, 0), strict=True)])
    weight_N = torch.cat([torch.full((len(part),), 1 / len(part), dtype=torch.float64) for part in parts])
    return fit_logistic(torch.cat(parts), label_N, 2, l2, weight_N, ROUGH)


def _out_of_fold(layers: list[nn.Linear], pools: list[Cached]) -> list[Judged]:
    """Both pools, with the logit of each item by the discriminator of its own fold, (L,) and (U,) float64."""
    found = []
    for pool in pools:
        logit_NK = torch.cat([layer(pool.x_ND) for layer in layers], dim=1)
        found.append(Judged(logit_NK.gather(1, pool.fold_N[:, None]).squeeze(1), pool.fold_N))
    return found
