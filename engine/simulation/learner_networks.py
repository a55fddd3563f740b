"""The networks of task models, with random weights: those of the VAAL paper, as far as a kept library has them, and
small ones for CPUs.

Each takes the image's side in pixels, its channels and the number of classes, and draws from torch's global generator.
"""

from itertools import pairwise

from torch import Tensor, nn

from engine.models.task_networks import make_task_network, resnet18_body
from vaal.networks import initialise

WIDTHS = (32, 64, 128, 128)
"""Channels of the convolutions of `small`; the two in the middle halve the image."""
DILATED_FEATURES = 2048


def small(image_size: int, channels: int, num_classes: int) -> nn.Module:  # noqa: ARG001
    """Four layers of convolutions."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise((channels, *WIDTHS))):
        stride = 2 if number in (1, 2) else 1
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    output = nn.Linear(WIDTHS[-1], num_classes)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), output)
    initialise(model, linear=[output])
    return model


def resnet18(image_size: int, channels: int, num_classes: int) -> nn.Module:
    """The paper's for ImageNet, with BatchNorm; below 64 pixels it begins as for CIFAR."""
    head = nn.Linear(512, num_classes)
    model = nn.Sequential(resnet18_body(image_size, channels, nn.BatchNorm2d), head)
    initialise(model, linear=[head])
    return model


def vgg16_bn(image_size: int, channels: int, num_classes: int) -> nn.Module:
    """The paper's for CIFAR and Caltech-256; for images of 32 pixels and more."""
    return make_task_network("vgg16_bn", image_size, channels, num_classes)


def unet(image_size: int, channels: int, num_classes: int) -> nn.Module:
    """A class a pixel, at half of the image's sides."""
    return make_task_network("unet", image_size, channels, num_classes)


class _Dilated(nn.Module):
    """ResNet-50 whose last two stages are dilated instead of halved, and a convolution of 1 x 1."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        from torchvision import models

        # ResNet-18's blocks cannot be dilated there.
        body = models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
        body.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.body = nn.Sequential(*list(body.children())[:-2])
        self.head = nn.Conv2d(DILATED_FEATURES, num_classes, 1)
        initialise(self, linear=[self.head])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BNhw: Tensor = self.head(self.body(x_BCHW))
        return logits_BNhw


def dilated_resnet(image_size: int, channels: int, num_classes: int) -> nn.Module:  # noqa: ARG001
    """A class a pixel, at an eighth of the image's sides. The paper's network, DRN, is in no kept library."""
    return _Dilated(channels, num_classes)
