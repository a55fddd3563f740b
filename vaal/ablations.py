"""The paper's ablations of its components (arXiv 1904.00370): discriminators without a VAE, and a VAE without them.

The third ablation, discriminators on a VAE that was trained first and frozen, needs no network of its own.

Shape suffixes: B batch, C image channels, H height, W width, Z latent units, K folds, N labelled items.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaal.networks import NetworkShape, encoder_stages, feature_map_sizes, initialise, perceptron, stage_widths

PIXEL_SIDE = 16
"""Pixels. A discriminator on pixels sees larger images averaged down to this side."""


class ImageDiscriminators(nn.Module):
    """K independent discriminators on images in one module. All their weights lie below `folds.{k}`."""

    def __init__(self, encoders: Sequence[nn.Module], num_latents: int, shape: NetworkShape) -> None:
        super().__init__()
        self.num_latents = num_latents
        self.folds = nn.ModuleList(
            nn.Sequential(OrderedDict(encoder=encoder, classifier=perceptron(num_latents, shape)))
            for encoder in encoders
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Labelled-logits (B, K), one column a discriminator."""
        return torch.cat([fold(x_BCHW) for fold in self.folds], dim=1)

    def latents(self, x_BCHW: Tensor) -> Tensor:
        """Features (B, Z) of every item by the first discriminator, float32: one space, in which items are compared."""
        latent_BZ: Tensor = self.folds[0].get_submodule("encoder")(x_BCHW).float()
        return latent_BZ

    def features(self, x_BCHW: Tensor, fold_B: Tensor) -> Tensor:
        """Features (B, Z) of each item by its own discriminator. `fold_B` is int64."""
        # NaN, which scoring refuses, for an item without a fold.
        features_BZ = x_BCHW.new_full((len(x_BCHW), self.num_latents), float("nan"))
        for number, fold in enumerate(self.folds):
            is_own = fold_B == number
            if is_own.any():
                features_BZ[is_own] = fold.get_submodule("encoder")(x_BCHW[is_own])
        return features_BZ

    def classify(self, features_BZ: Tensor) -> Tensor:
        """Labelled-logits (B, K) of features; column k is meaningful only for the items of fold k."""
        return torch.cat([fold.get_submodule("classifier")(features_BZ) for fold in self.folds], dim=1)


class PixelDiscriminators(ImageDiscriminators):
    """Discriminators only: the paper's perceptron on the pixels, averaged by area to at most 16 x 16."""

    def __init__(self, num_folds: int, image_size: int, num_channels: int, shape: NetworkShape) -> None:
        side = min(PIXEL_SIDE, image_size)
        pixels = [nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten()) for _ in range(num_folds)]
        super().__init__(pixels, num_channels * side**2, shape)


class FeatureDiscriminators(ImageDiscriminators):
    """Discriminators only, on learned features: each has an encoder like the VAE's, trained end to end."""

    def __init__(self, num_folds: int, image_size: int, num_channels: int, shape: NetworkShape) -> None:
        widths = stage_widths(image_size, shape.width, shape.max_width)
        encoders: list[nn.Module] = []
        for _ in range(num_folds):
            to_features = nn.Linear(widths[-1] * feature_map_sizes(image_size)[-1] ** 2, shape.num_latents)
            encoder = nn.Sequential(encoder_stages(num_channels, widths, shape.blocks), nn.Flatten(), to_features)
            initialise(encoder, linear=[to_features])
            encoders.append(encoder)
        super().__init__(encoders, shape.num_latents, shape)


class Centroid(nn.Module):
    """For the VAE only: the labelled pool as one Gaussian, the 2-Wasserstein barycentre of its posteriors q(z|x).

    The covariances of diagonal Gaussians commute, so the barycentre is the Gaussian with the mean of the means and the
    mean of the standard deviations (Agueh and Carlier 2011, SIAM Journal on Mathematical Analysis 43, section 6).
    """

    mean_Z: Tensor
    std_Z: Tensor

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        # NaN, which scoring refuses, until `fit`.
        self.register_buffer("mean_Z", torch.full((num_latents,), float("nan")))
        self.register_buffer("std_Z", torch.full((num_latents,), float("nan")))

    def fit(self, mean_NZ: Tensor, logvar_NZ: Tensor) -> None:
        """Compute the barycentre of all labelled images' posteriors, with equal weights."""
        self.mean_Z.copy_(mean_NZ.mean(dim=0))
        self.std_Z.copy_((0.5 * logvar_NZ).exp().mean(dim=0))
