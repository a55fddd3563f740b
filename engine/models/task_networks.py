"""The networks of a task learner that the engine trains (`train.task_network`), with random weights.

Each has `features(x) -> (B, D)` and `head`, a linear layer from these to logits (B, C).
"""

import math
from typing import NamedTuple

from torch import Tensor, nn

from vaal.networks import initialise
from vaal.task.classifier import Classifier

SMALL_IMAGE = 64
"""Below this side in pixels, ResNet-18 begins as it does for CIFAR (arXiv 1512.03385, section 4.2): 3 x 3, stride 1."""


class TaskNetwork(NamedTuple):
    """A network's peak learning rate and weight decay of AdamW, the smallest side of an image in pixels, and whether it
    has layers of dropout."""

    learning_rate: float
    weight_decay: float
    smallest_image: int
    has_dropout: bool = False


TASK_NETWORKS: dict[str, TaskNetwork] = {
    "small": TaskNetwork(1e-2, 0.05, 4),
    "resnet18": TaskNetwork(1e-3, 0.05, 4),
    "vgg16_bn": TaskNetwork(1e-3, 0.05, 32, has_dropout=True),
}


class _Headed(nn.Module):
    """A network of a library: its body, and its last linear layer as the head."""

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head

    def features(self, x_BCHW: Tensor) -> Tensor:
        features_BD: Tensor = self.body(x_BCHW)
        return features_BD

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self.head(self.features(x_BCHW))
        return logits_BC


def make_task_network(name: str, image_size: int, num_channels: int, num_classes: int) -> nn.Module:
    """The network of this name (TASK_NETWORKS) for images of this size, scaled to [-1, 1].

    Initial weights are drawn from torch's global generator.
    """
    if name == "small":
        return Classifier(image_size, num_channels, num_classes)
    from torchvision import models

    if name == "resnet18":
        # Batch-mates change nothing, so that any number of workers trains alike.
        body: nn.Module = models.resnet18(weights=None, norm_layer=_group_norm)
        is_small = image_size < SMALL_IMAGE
        side, stride = (3, 1) if is_small else (7, 2)
        body.conv1 = nn.Conv2d(num_channels, 64, side, stride, padding=side // 2, bias=False)
        body.maxpool = nn.Identity() if is_small else body.maxpool
        head = nn.Linear(512, num_classes)
        body.fc = nn.Identity()
    else:
        body = models.vgg16_bn(weights=None)
        head = nn.Linear(4096, num_classes)
        body.set_submodule("classifier.6", nn.Identity())
        body.set_submodule("features.0", nn.Conv2d(num_channels, 64, 3, padding=1))
    initialise(body)
    initialise(head, linear=[head])
    return _Headed(body, head)


def _group_norm(num_channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, num_channels), num_channels)
