"""A small U-Net (arXiv 1505.04597) as the task learner of masks: a class for each pixel, at half of the input's sides.

Shape suffixes: B batch, C image channels, H height, W width, F features, N classes; h, w the sides of a map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaal.networks import initialise, stage

WIDTH = 24
"""Channels of the first map. With it the network has 1.1 million parameters."""
DEPTH = 3
"""Times that the first map is halved; channels double."""
BLOCKS = 2
"""Convolutions at each resolution, the second one residual."""


class UNet(nn.Module):
    """For images of any size from 16 pixels, scaled to [-1, 1]. GroupNorm: it never mixes samples."""

    def __init__(self, num_channels: int, num_classes: int, width: int = WIDTH) -> None:
        super().__init__()
        narrow = [width * 2**level for level in range(DEPTH)]
        # Maps of the full size would cost four times as much as all others together.
        self.stem = stage(num_channels, width, stride=2, blocks=BLOCKS)
        self.down = nn.ModuleList(stage(count, 2 * count, stride=2, blocks=BLOCKS) for count in narrow)
        self.up = nn.ModuleList(stage(3 * count, count, stride=1, blocks=BLOCKS) for count in narrow)
        self.head = nn.Conv2d(width, num_classes, 1)
        initialise(self, linear=[self.head])

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The last map (B, F, h, w), h and w half of H and W, rounded up."""
        maps = [self.stem(x_BCHW)]
        for halve in self.down:
            maps.append(halve(maps[-1]))
        x_BFhw: Tensor = maps.pop()
        for join in reversed(self.up):
            beside = maps.pop()
            wider = F.interpolate(x_BFhw, size=beside.shape[2:], mode="nearest")
            x_BFhw = join(torch.cat([wider, beside], dim=1))
        return x_BFhw

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, N, h, w)."""
        logits_BNhw: Tensor = self.head(self.features(x_BCHW))
        return logits_BNhw
