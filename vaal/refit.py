"""The last refit: discriminators fitted anew, cross-fitted, on the frozen encoder's latents, and calibrated.

In the game the encoder moves while the discriminators train; afterwards it stands still, and they can be fitted to the
end. The same fit makes discriminators straight on embeddings.

Shape suffixes: N items, L labelled, U unlabelled ones, D units of an input, B batch, K folds.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaal.logistic import fit_logistic

PENALTIES = (1.0, 0.1, 0.01, 0.001)
"""l2 of the logistic regressions; that with the least loss out of fold is used for all folds."""
TEMPERATURES = (0.1, 10.0)
"""Bounds of the temperature, by which logits are divided."""

LEAST_ALIGNED = 50
"""Unlabelled items of a fold whose median and spread are known well enough."""


class Cached(NamedTuple):
    """Inputs of the discriminators for the items of one pool (N, D), float32, and their folds (N,), int64."""

    x_ND: Tensor
    fold_N: Tensor


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

    Both pools have the same weight, so that a logit of 0 means equally dense. The logits are made comparable in two
    steps, both linear and part of the weights: the unlabelled items of a fold are a random sample of the pool, so the
    logits that its discriminator gives them have the median and the spread of all folds'; then one temperature
    minimises the loss of the logits out of fold (Platt 1999, without the offset). With one fold there is nothing out of
    fold, and neither is done.

    The same for the same items in any order up to rounding. Raises ValueError if a pool has no item outside of a fold,
    or an input is not finite.
    """
    pools = [
        pool._replace(x_ND=pool.x_ND.detach().double().cpu(), fold_N=pool.fold_N.cpu())
        for pool in (labelled, unlabelled)
    ]
    x_ND = torch.cat([pool.x_ND for pool in pools])
    mean_D, std_D = x_ND.mean(dim=0), x_ND.std(dim=0, correction=0)
    # A unit that never varies has weight 0 whatever its scale.
    std_D = torch.where(std_D > 0, std_D, 1.0)
    scaled = [pool._replace(x_ND=(pool.x_ND - mean_D) / std_D) for pool in pools]
    best: list[nn.Linear] = []
    least = torch.inf
    for l2 in PENALTIES if num_folds > 1 else PENALTIES[1:2]:
        layers = [_fit(scaled, n, num_folds, l2) for n in range(num_folds)]
        loss = _balanced_loss(*_out_of_fold(layers, scaled)) if num_folds > 1 else 0.0
        if loss < least:
            best, least = layers, loss
    made = FittedDiscriminators(num_folds, x_ND.shape[1])
    scales = _calibration(best, scaled) if num_folds > 1 else [(1.0, 0.0)]
    for fold, layer, (factor, offset) in zip(made.folds, best, scales, strict=True):
        weight_1D = factor * layer.weight.double() / std_D
        bias_1 = factor * layer.bias.double() + offset - weight_1D @ mean_D
        fold.load_state_dict({"weight": weight_1D, "bias": bias_1})
    return made.requires_grad_(False)


def _fit(pools: list[Cached], number: int, num_folds: int, l2: float) -> nn.Linear:
    parts = [pool.x_ND[pool.fold_N != number] if num_folds > 1 else pool.x_ND for pool in pools]
    if not all(map(len, parts)):
        raise ValueError(f"a pool has no item outside of fold {number}")
    label_N = torch.cat([torch.full((len(part),), kind) for part, kind in zip(parts, (1, 0), strict=True)])
    weight_N = torch.cat([torch.full((len(part),), 1 / len(part), dtype=torch.float64) for part in parts])
    return fit_logistic(torch.cat(parts), label_N, 2, l2, weight_N)


def _out_of_fold(layers: list[nn.Linear], pools: list[Cached]) -> list[Tensor]:
    """The logit of each item by the discriminator of its own fold, (L,) and (U,) float64."""
    found = []
    for pool in pools:
        logit_NK = torch.cat([layer.double()(pool.x_ND) for layer in layers], dim=1)
        found.append(logit_NK.gather(1, pool.fold_N[:, None]).squeeze(1))
    return found


def _balanced_loss(labelled_L: Tensor, unlabelled_U: Tensor) -> float:
    return float(F.softplus(-labelled_L).mean() + F.softplus(unlabelled_U).mean())


def _calibration(layers: list[nn.Linear], pools: list[Cached]) -> list[tuple[float, float]]:
    """A factor and an offset for the logits of each fold."""
    labelled_L, unlabelled_U = _out_of_fold(layers, pools)
    middle, spread = _location(unlabelled_U)
    scales = []
    for number in range(len(layers)):
        own_N = unlabelled_U[pools[1].fold_N == number]
        own_middle, own_spread = _location(own_N) if len(own_N) >= LEAST_ALIGNED else (middle, spread)
        factor = spread / own_spread if own_spread > 0 else 1.0
        scales.append((factor, middle - factor * own_middle))
    aligned = []
    for logit_N, pool in zip((labelled_L, unlabelled_U), pools, strict=True):
        factor_N, offset_N = torch.tensor(scales, dtype=torch.float64)[pool.fold_N].unbind(dim=1)
        aligned.append(factor_N * logit_N + offset_N)
    temperature = _temperature(*aligned)
    return [(factor / temperature, offset / temperature) for factor, offset in scales]


def _location(logit_N: Tensor) -> tuple[float, float]:
    """The median and the spread, half the distance of the quartiles."""
    low, middle, high = torch.quantile(logit_N, logit_N.new_tensor([0.25, 0.5, 0.75])).tolist()
    return middle, (high - low) / 2


def _temperature(labelled_L: Tensor, unlabelled_U: Tensor) -> float:
    """What the logits are to be divided by for the least loss, by ternary search: the loss is convex in 1 / t."""

    def loss(factor: float) -> float:
        return _balanced_loss(factor * labelled_L, factor * unlabelled_U)

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(60):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return 2 / (low + high)
