"""Latents of images where no training method gives some: the task learner's features, or without one the pixels.

Shape suffixes: B batch, D components, Z latent units.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_UNITS = 512
"""Longer features are projected: a latent is stored of every image."""
PROJECTED_UNITS = 128
PIXEL_MAP = 4
"""Side of the map to which pixels are averaged."""


class Projection(nn.Module):
    """A fixed linear map (D, Z) to latents, which keeps distances but for a factor of about 1 (Johnson and
    Lindenstrauss 1984)."""

    matrix: Tensor

    def __init__(self, matrix_DZ: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix_DZ)

    @classmethod
    def of(cls, length: int, seed: int) -> "Projection":
        """For vectors of D = `length`: the identity up to MOST_UNITS, else random and Gaussian, the same for a seed."""
        if length <= MOST_UNITS:
            return cls(torch.eye(length))
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.randn(length, PROJECTED_UNITS, generator=generator) / math.sqrt(PROJECTED_UNITS))

    @property
    def num_latents(self) -> int:
        return self.matrix.shape[1]

    def forward(self, x_BD: Tensor) -> Tensor:
        """Latents (B, Z), float32."""
        return x_BD.float() @ self.matrix


def pooled(features: Tensor) -> Tensor:
    """Features (B, D) of each image: of a map (B, D, h, w) their mean over its places."""
    return features.flatten(2).mean(dim=2) if features.ndim > 2 else features


def coarse(x_BCHW: Tensor) -> Tensor:
    """The pixels of images, averaged to 4 x 4 (B, 16 C)."""
    return F.adaptive_avg_pool2d(x_BCHW, PIXEL_MAP).flatten(1)
