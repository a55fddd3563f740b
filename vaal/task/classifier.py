"""The small network of the task learner T of Algorithm 1 (arXiv 1904.00370), and how its images are augmented.

T is trained on the labelled pool only, with its own optimizer. The VAE and the discriminators never see it.

Shape suffixes: B batch, C image channels, H height, W width, F features, N classes.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vaal.networks import encoder_stages, initialise, stage, stage_widths

CROP_SHARE = 8
"""A crop is moved by at most a side divided by this, in both directions."""
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
        self.head = nn.Linear(widths[-1], num_classes)
        initialise(self, linear=[self.head])

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Features (B, F) for the last layer: the last map, averaged over its pixels."""
        features_BF: Tensor = self.encoder(self.stem(x_BCHW)).mean(dim=(2, 3))
        return features_BF

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, N)."""
        logits_BN: Tensor = self.head(self.features(x_BCHW))
        return logits_BN


def augmented(pixels_NHWC: NDArray[np.uint8], rng: np.random.Generator, *, flips: bool) -> NDArray[np.uint8]:
    """The images (N, H, W, C), each moved by up to 1/8 of its sides and, with `flips`, mirrored left to right or not.

    What moves in at an edge is the image's reflection. Moved by 4 of 32 pixels, as arXiv 1512.03385, section 4.2, does
    for CIFAR-10.
    """
    num_images, height, width, _ = pixels_NHWC.shape
    row_NH, column_NW = (_moved(num_images, side, rng) for side in (height, width))
    if flips:
        mirrored_N1 = rng.random((num_images, 1)) < 0.5
        column_NW = np.where(mirrored_N1, column_NW[:, ::-1], column_NW)
    return pixels_NHWC[np.arange(num_images)[:, None, None], row_NH[:, :, None], column_NW[:, None, :]]


def _moved(num_images: int, side: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The place in the image of each place in its crop, reflected at the edges, (N, side)."""
    most = side // CROP_SHARE
    place_NS = np.arange(side) + rng.integers(-most, most + 1, (num_images, 1))
    place_NS = np.where(place_NS < 0, -place_NS, place_NS)
    return np.where(place_NS >= side, 2 * (side - 1) - place_NS, place_NS)
