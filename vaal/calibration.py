"""One temperature, so that logits of items that nothing trained on are log odds (Guo et al. 2017, arXiv 1706.04599).

Shape suffixes: N items, C logits (one for two classes).
"""

import torch
from torch import Tensor, nn

from vaal.logistic import cross_entropy, linear

SMALLEST_FACTOR, LARGEST_FACTOR = 0.05, 2.0
"""Bounds of what logits are multiplied by. Few items say little of it, and must neither silence nor inflate logits."""
_HALVINGS = 60


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


@torch.no_grad()
def seen_through(layer: nn.Linear, to_inputs_DE: Tensor) -> nn.Linear:
    """The layer on x (N, D) that gives what `layer` gives on x @ to_inputs_DE (N, E)."""
    return linear(layer.weight.double() @ to_inputs_DE.to(layer.weight).double().T, layer.bias, layer.weight.dtype)
