"""The two networks of VAAL for images of any size, 1 to 4 channels, and any width and depth.

Nothing here mixes samples: normalisation is GroupNorm, so an image's latent depends on that image alone.

Shape suffixes: B batch, C image channels, H height, W width, F feature channels, Z latent units, K folds.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_MAP = 4
"""The encoder halves the image until neither side is larger than this, pixels."""


@dataclass(frozen=True)
class NetworkShape:
    """How large the networks are. `max_width` bounds the channels, which double with each halving from `width`."""

    width: int
    max_width: int
    num_latents: int
    discriminator_width: int


PRESETS: dict[str, NetworkShape] = {
    "small": NetworkShape(width=32, max_width=256, num_latents=32, discriminator_width=128),
    "base": NetworkShape(width=64, max_width=512, num_latents=64, discriminator_width=512),
    "large": NetworkShape(width=128, max_width=1024, num_latents=128, discriminator_width=512),
}


def feature_map_sizes(image_size: int) -> list[int]:
    """Side lengths of the encoder's maps, the image first. An odd side is rounded up, so every size is valid."""
    sizes = [image_size]
    while sizes[-1] > SMALLEST_MAP or len(sizes) == 1:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def _stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    # Without bias: the norm would cancel it, and Adam amplifies a gradient that is zero but for rounding.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(num_groups=min(8, out_channels), num_channels=out_channels),
        nn.SiLU(),
    )


class Decoder(nn.Module):
    """Latents (B, Z) to images (B, C, H, W), unbounded; resizes to the encoder's map sizes in reverse."""

    def __init__(self, image_size: int, num_channels: int, widths: list[int], num_latents: int) -> None:
        super().__init__()
        *self.sizes, self.first_size = feature_map_sizes(image_size)
        self.first_width = widths[-1]
        self.expand = nn.Linear(num_latents, self.first_width * self.first_size**2)
        outputs = [*reversed(widths[:-1]), widths[0]]
        self.stages = nn.ModuleList(_stage(i, o, stride=1) for i, o in zip(reversed(widths), outputs, strict=True))
        self.to_image = nn.Conv2d(widths[0], num_channels, kernel_size=3, padding=1)

    def forward(self, z_BZ: Tensor) -> Tensor:
        x = self.expand(z_BZ).view(-1, self.first_width, self.first_size, self.first_size)
        for stage, size in zip(self.stages, reversed(self.sizes), strict=True):
            x = stage(F.interpolate(x, size=(size, size), mode="nearest"))
        image_BCHW: Tensor = self.to_image(x)
        return image_BCHW


class VAE(nn.Module):
    """Convolutional beta-VAE. Inputs and reconstructions are images scaled to [-1, 1]."""

    def __init__(self, image_size: int, num_channels: int, shape: NetworkShape) -> None:
        super().__init__()
        sizes = feature_map_sizes(image_size)
        widths = [min(shape.width * 2**i, shape.max_width) for i in range(len(sizes) - 1)]
        inputs = [num_channels, *widths[:-1]]
        self.encoder = nn.Sequential(*(_stage(i, o, stride=2) for i, o in zip(inputs, widths, strict=True)))
        num_features = widths[-1] * sizes[-1] ** 2
        self.to_mean = nn.Linear(num_features, shape.num_latents)
        self.to_logvar = nn.Linear(num_features, shape.num_latents)
        self.decoder = Decoder(image_size, num_channels, widths, shape.num_latents)

    def encode(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each (B, Z)."""
        features = self.encoder(x_BCHW).flatten(1)
        # exp(logvar) overflows float32 above 88; a trained posterior stays far inside these bounds.
        return self.to_mean(features), self.to_logvar(features).clamp(-10.0, 10.0)

    def forward(self, x_BCHW: Tensor, noise_BZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, C, H, W) from z = mean + exp(logvar / 2) * noise, then mean and log-variance (B, Z)."""
        mean_BZ, logvar_BZ = self.encode(x_BCHW)
        z_BZ = mean_BZ + torch.exp(0.5 * logvar_BZ) * noise_BZ
        return self.decoder(z_BZ), mean_BZ, logvar_BZ


class Discriminators(nn.Module):
    """K independent discriminators in one module, so that one optimizer and one engine moves them all.

    Each is the paper's multilayer perceptron on the latent mean: the probability that an image is labelled,
    returned as a logit because a float32 probability saturates at the very end that is picked.
    """

    def __init__(self, num_folds: int, shape: NetworkShape) -> None:
        super().__init__()
        self.folds = nn.ModuleList(
            nn.Sequential(
                nn.Linear(shape.num_latents, shape.discriminator_width),
                nn.SiLU(),
                nn.Linear(shape.discriminator_width, shape.discriminator_width),
                nn.SiLU(),
                nn.Linear(shape.discriminator_width, 1),
            )
            for _ in range(num_folds)
        )

    def forward(self, mean_BZ: Tensor) -> Tensor:
        """Labelled-logits (B, K), one column a discriminator."""
        return torch.cat([fold(mean_BZ) for fold in self.folds], dim=1)
