"""The networks of a task learner that the engine trains (`train.task_network`), with random weights.

Each has `features(x) -> (B, D)` and `head`, a linear layer from these to logits (B, C); those of masks (B, D, h, w),
and a convolution of 1 x 1 to (B, C, h, w).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from engine.models.adapters import joint_maps
from vaal.networks import initialise
from vaal.task.classifier import Classifier
from vaal.task.unet import UNet

SMALL_IMAGE = 64
"""Below this side in pixels, ResNet-18 begins as it does for CIFAR (arXiv 1512.03385, section 4.2): 3 x 3, stride 1."""

LITE_FEATURES = 40 + 128
"""Of LR-ASPP: channels of the fine and of the coarse map."""


class TaskNetwork(NamedTuple):
    """A network's peak learning rate and weight decay of AdamW, and the smallest side of an image in pixels."""

    learning_rate: float
    weight_decay: float
    smallest_image: int


TASK_NETWORKS: dict[str, TaskNetwork] = {
    "small": TaskNetwork(1e-2, 0.05, 4),
    "resnet18": TaskNetwork(1e-3, 0.05, 4),
    "vgg16_bn": TaskNetwork(1e-3, 0.05, 32),
    "unet": TaskNetwork(3e-3, 0.05, 16),
    "lraspp": TaskNetwork(3e-3, 0.05, 32),
}


class _Headed(nn.Module):
    """A network of a library: its body, and its last layer as the head."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def features(self, x_BCHW: Tensor) -> Tensor:
        features_BD: Tensor = self.body(x_BCHW)
        return features_BD

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self.head(self.features(x_BCHW))
        return logits_BC


class _LiteBody(nn.Module):
    """LR-ASPP on MobileNetV3 (arXiv 1905.02244, section 6.4) without its last layer; maps are an eighth of the input's
    sides."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        from torchvision.models import segmentation

        network = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1)
        network.backbone["0"][0] = nn.Conv2d(num_channels, 16, 3, stride=2, padding=1, bias=False)
        del network.classifier.low_classifier, network.classifier.high_classifier
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return joint_maps(self.network, x_BCHW)


def make_task_network(name: str, image_size: int, num_channels: int, num_classes: int) -> nn.Module:
    """The network of this name (TASK_NETWORKS) for images of this size, scaled to [-1, 1].

    Initial weights are drawn from torch's global generator.
    """
    if name == "small":
        return Classifier(image_size, num_channels, num_classes)
    if name == "unet":
        return UNet(num_channels, num_classes)
    from torchvision import models

    body: nn.Module
    head: nn.Module
    if name == "lraspp":
        body, head = _LiteBody(num_channels), nn.Conv2d(LITE_FEATURES, num_classes, 1)
    elif name == "resnet18":
        # Batch-mates change nothing, so that any number of workers trains alike.
        body = resnet18_body(image_size, num_channels, _group_norm)
        head = nn.Linear(512, num_classes)
    else:
        body = models.vgg16_bn(weights=None)
        head = nn.Linear(4096, num_classes)
        body.set_submodule("classifier.6", nn.Identity())
        body.set_submodule("features.0", nn.Conv2d(num_channels, 64, 3, padding=1))
    initialise(body)
    initialise(head, linear=[head])
    return _Headed(body, head)


def resnet18_body(image_size: int, num_channels: int, norm_layer: Callable[[int], nn.Module]) -> nn.Module:
    """ResNet-18 without its last layer: 512 features."""
    from torchvision import models

    body: nn.Module = models.resnet18(weights=None, norm_layer=norm_layer)
    is_small = image_size < SMALL_IMAGE
    side, stride = (3, 1) if is_small else (7, 2)
    body.conv1 = nn.Conv2d(num_channels, 64, side, stride, padding=side // 2, bias=False)
    body.maxpool = nn.Identity() if is_small else body.maxpool
    body.fc = nn.Identity()
    return body


def _group_norm(num_channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, num_channels), num_channels)
