"""The task learner T of Algorithm 1 (arXiv 1904.00370), for classification.

It is trained beside the VAE on the labelled pool only, with its own optimizer. It never influences what is picked. The
caller does augmentation.

Shape suffixes: B batch, C image channels, H height, W width, F features, N classes.
"""

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from vaal.networks import encoder_stages, initialise, stage, stage_widths

if TYPE_CHECKING:
    from vaal.step import Updater

BLOCKS = 2
"""Convolutions at each resolution, the second one residual."""


class Classifier(nn.Module):
    """A small residual network for images of any size, scaled to [-1, 1]. It never mixes samples."""

    def __init__(self, image_size: int, num_channels: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        widths = stage_widths(image_size, width, max_width=8 * width)
        # The first stage keeps the resolution: small images lose what separates classes when they are halved at once.
        self.stem = stage(num_channels, width, stride=1, blocks=BLOCKS)
        self.encoder = encoder_stages(width, widths, BLOCKS)
        self.to_logits = nn.Linear(widths[-1], num_classes)
        initialise(self, linear=[self.to_logits])

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Features (B, F) for the last layer: the last map, averaged over its pixels."""
        features_BF: Tensor = self.encoder(self.stem(x_BCHW)).mean(dim=(2, 3))
        return features_BF

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, N)."""
        logits_BN: Tensor = self.to_logits(self.features(x_BCHW))
        return logits_BN


def task_loss(logits_BN: Tensor, label_B: Tensor) -> Tensor:
    """Cross-entropy in nats, averaged over B. A scalar. `label_B` is int64, from 0 to N - 1."""
    return F.cross_entropy(logits_BN, label_B)


def task_step(task: "Updater", x_BCHW: Tensor, label_B: Tensor, weight: float = 1.0) -> Tensor:
    """Update the task learner by a micro-batch of this weight (see `vaal.step.Batch`).

    Returns its loss before the update, without the weight, detached: a float32 scalar in nats.
    """
    loss = task_loss(task(x_BCHW).float(), label_B)
    task.apply(weight * loss)
    return loss.detach()
