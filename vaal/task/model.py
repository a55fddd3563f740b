"""The task learner T, whoever made it: features, and a head from these to logits.

Shape suffixes: B batch, D components of the features, C outputs, K values of an answer, P answers of an item; h, w the
sides of a map.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaal.task.kinds import Kind


class Task(nn.Module):
    """A task learner: a network with `features(x) -> (B, D)` and `head(features) -> logits (B, C)`; for segmentation
    (B, D, h, w) and (B, C, h, w). It never mixes samples.

    `members` are further networks of the same interface and answers, trained apart: with this one, a committee.
    `unit_C` is what 1 of the network's input is in pixels from 0 to 1, by channel or for all: 0.5 for [-1, 1]. Logits
    are divided by the temperature (arXiv 1706.04599).
    """

    temperature: Tensor

    def __init__(
        self, network: nn.Module, kind: Kind = "classes", members: Sequence[nn.Module] = (),
        unit_C: Sequence[float] = (0.5,),
    ) -> None:  # fmt: skip
        super().__init__()
        self.network: Any = network
        self.kind, self.members, self.unit_C = kind, nn.ModuleList(members), tuple(unit_C)
        self.register_buffer("temperature", torch.ones(()))

    def features(self, x_B: Tensor) -> Tensor:
        """Features (B, D), or (B, D, h, w)."""
        found: Tensor = self.network.features(x_B)
        return found

    def head(self, features_B: Tensor, network: Any = None) -> Tensor:
        """Logits (B, C), or (B, C, h, w), of features, by the first network or another one; float32 outside of
        autocast."""
        with torch.autocast(features_B.device.type, enabled=False):
            found: Tensor = (network or self.network).head(features_B.float())
            return found.float() / self.temperature

    def forward(self, x_B: Tensor) -> Tensor:
        """Logits (B, C), or (B, C, h, w)."""
        return self.head(self.features(x_B))

    @property
    def networks(self) -> list[Any]:
        """All networks: the first, by which everything but a committee scores, and the members."""
        return [self.network, *self.members]

    @property
    def linear(self) -> nn.Linear | None:
        """The head, where it is one linear layer: on (B, D) features, or as a convolution of 1 x 1 on each place of
        (B, D, h, w); its logits are not divided by the temperature."""
        head = getattr(self.network, "head", None)
        if (
            isinstance(head, nn.Conv2d)
            and head.weight[0, 0].numel() == 1
            and head.groups == 1
            and head.stride == (1, 1)
        ):
            layer = nn.Linear(head.in_channels, head.out_channels, head.bias is not None, device="meta")
            layer.weight = nn.Parameter(head.weight.flatten(1), requires_grad=False)
            if head.bias is not None:
                layer.bias = nn.Parameter(head.bias, requires_grad=False)
            return layer
        return head if isinstance(head, nn.Linear) else None


def log_probabilities(kind: Kind, logit: Tensor) -> Tensor:
    """The log probabilities of an item's answers (B, K, P), float32, of logits (B, C) or (B, C, h, w).

    One answer of K = C values for a class; P = C answers of two values, no and yes, for labels; P = h w answers of
    K = C values for segmentation, at the resolution of the logits.
    """
    logit = logit.float()
    if kind == "labels":
        return torch.stack([F.logsigmoid(-logit), F.logsigmoid(logit)], dim=1)
    return logit.flatten(2).log_softmax(dim=1) if logit.ndim > 2 else logit.log_softmax(dim=1)[:, :, None]
