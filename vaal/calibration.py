"""Logits that can be compared and taken for log odds: folds aligned, and one temperature (arXiv 1706.04599).

Shape suffixes: N items, L labelled, U unlabelled ones, C logits (one for two classes).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaal.logistic import cross_entropy

SMALLEST_FACTOR, LARGEST_FACTOR = 0.05, 2.0
"""Bounds of what logits are multiplied by. Few items say little of it, and must neither silence nor inflate logits."""
_HALVINGS = 60
LEAST_ALIGNED = 50
"""Unlabelled items of a fold from which its logits are compared with the others'. With fewer they stay as they are."""
LOW, MIDDLE = 0.1, 0.5
"""Quantiles whose distance is the spread of a fold's logits: the half where the picks are."""


class Judged(NamedTuple):
    """Items of one pool (N,): the logit of each by a discriminator that has not seen it, and the fold of that one,
    int64."""

    logit_N: Tensor
    fold_N: Tensor


def temperature_factor(logit_NC: Tensor, label_N: Tensor, weight_N: Tensor | None = None) -> float:
    """1 / temperature: the factor of the logits with the lowest weighted cross-entropy, within the bounds.

    The loss is convex in the factor, so that halving an interval finds it. 1 if there are no items.
    """
    if not len(logit_NC):
        return 1.0
    logit_NC = logit_NC.detach().double()
    share_N = torch.ones_like(logit_NC[:, 0]) if weight_N is None else weight_N.to(logit_NC)

    def slope(factor: float) -> float:
        scaled_NC = factor * logit_NC
        if logit_NC.shape[1] == 1:
            return float(share_N @ ((scaled_NC[:, 0].sigmoid() - label_N.to(logit_NC)) * logit_NC[:, 0]))
        mean_N = (scaled_NC.softmax(dim=1) * logit_NC).sum(dim=1)
        return float(share_N @ (mean_N - logit_NC.gather(1, label_N[:, None])[:, 0]))

    low, high = SMALLEST_FACTOR, LARGEST_FACTOR
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2


def mean_loss(logit_NC: Tensor, label_N: Tensor, weight_N: Tensor | None = None) -> float:
    """The weighted mean cross-entropy in nats."""
    loss_N = cross_entropy(logit_NC.detach().double(), label_N)
    return float(loss_N.mean() if weight_N is None else weight_N.to(loss_N) @ loss_N / weight_N.sum())


@torch.no_grad()
def rescale(layer: nn.Linear, factor: float | Tensor, shift: float | Tensor = 0.0) -> None:
    """Change a last linear layer so that its outputs are factor * (output + shift)."""
    layer.weight.mul_(factor)
    layer.bias.add_(shift).mul_(factor)


def adjust(folds: Sequence[nn.Module], labelled: Judged, unlabelled: Judged) -> float:
    """Make the logits of the folds comparable and calibrated, in their last linear layers. Returns the temperature's
    factor.

    Unlabelled items are dealt into folds by chance, so the logits of two folds' items have one distribution, but for
    the discriminators that gave them: the median and the spread below it become those of all folds together. No label
    takes part. Then one factor, 1 / temperature, is fitted to the logits of both pools, each with half of the weight.
    Each fold's order of items stays as it is. Without an item of one of the pools there is no temperature, and 1.
    """
    pools = [pool._replace(logit_N=pool.logit_N.double().clone()) for pool in (labelled, unlabelled)]
    logit_U, fold_U = pools[1]
    parts = [logit_U[fold_U == number] for number in range(len(folds))]
    if len(folds) > 1 and min(map(len, parts)) >= LEAST_ALIGNED:
        target, target_spread = _location(logit_U)
        for number, (fold, own_N) in enumerate(zip(folds, parts, strict=True)):
            middle, spread = _location(own_N)
            factor = target_spread / spread if spread > 0 and target_spread > 0 else 1.0
            rescale(_last_layer(fold), factor, target / factor - middle)
            for pool in pools:
                is_own_N = pool.fold_N == number
                pool.logit_N[is_own_N] = factor * (pool.logit_N[is_own_N] - middle) + target
    if not all(len(pool.logit_N) for pool in pools):
        return 1.0
    factor = temperature_factor(*balanced(pools[0].logit_N, pools[1].logit_N))
    for fold in folds:
        rescale(_last_layer(fold), factor)
    return factor


def balanced(labelled_L: Tensor, unlabelled_U: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, 1) of both pools, whether they are labelled (N,), int64, and weights (N,) that give each pool half."""
    label_N = torch.cat([torch.ones_like(labelled_L), torch.zeros_like(unlabelled_U)]).long()
    counts = torch.tensor([max(1, len(unlabelled_U)), max(1, len(labelled_L))], device=label_N.device)
    return torch.cat([labelled_L, unlabelled_U])[:, None], label_N, 0.5 / counts[label_N].double()


def _location(logit_N: Tensor) -> tuple[float, float]:
    """The median, and the distance from the LOW quantile to it."""
    ordered_N = logit_N.sort().values
    low, middle = (float(ordered_N[int(share * (len(ordered_N) - 1))]) for share in (LOW, MIDDLE))
    return middle, middle - low


def _last_layer(module: nn.Module) -> nn.Linear:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
