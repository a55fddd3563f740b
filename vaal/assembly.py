"""The networks of each training method, for an image size and a preset."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaal.ablations import Centroid, FeatureDiscriminators, ImageDiscriminators, PixelDiscriminators
from vaal.acquisition.summary import Summary
from vaal.ensembles import EnsembleDiscriminators
from vaal.methods import SUMMARY
from vaal.networks import VAE, Autoencoder, Discriminators, NetworkShape, shape_for
from vaal.paper import PaperVAE, paper_shape
from vaal.refit import FittedDiscriminators
from vaal.standardise import Standardiser
from vaal.task.model import Task
from vaal.task.projection import Projection, coarse, pooled
from vaal.vector_networks import VectorDiscriminators, VectorVAE


class Sizes(NamedTuple):
    """The preset's name, the side of an image in pixels, its channels, the number of folds, and the length of the
    latents of embeddings that the networks see instead of pixels, 0 where they see pixels."""

    preset: str
    image_size: int
    num_channels: int
    num_folds: int
    vector_length: int = 0

    @property
    def shape(self) -> NetworkShape:
        return paper_shape(self.image_size) if self.preset == "paper" else shape_for(self.preset, self.image_size)


class Networks(NamedTuple):
    """The networks of a method, None where it has none. `task` is the task learner, `embedding` scales embeddings,
    `projection` makes latents where there is no method and no embedding. `summaries` are what acquisition functions
    were fitted to, by name."""

    vae: Autoencoder | None = None
    discriminators: Discriminators | ImageDiscriminators | FittedDiscriminators | EnsembleDiscriminators | None = None
    centroid: Centroid | None = None
    task: Task | None = None
    embedding: Standardiser | None = None
    projection: Projection | None = None
    summaries: Mapping[str, Summary] = {}

    @property
    def num_latents(self) -> int:
        """Units of a latent: of the VAE, or of what replaces it."""
        if (maker := self.projection or (self.embedding if self.discriminators is None else None)) is not None:
            return maker.num_latents
        encoder = self.discriminators if self.vae is None else self.vae
        assert isinstance(encoder, Autoencoder | ImageDiscriminators | FittedDiscriminators)
        return encoder.num_latents

    def scoring(self, *names: str) -> list[Any]:
        """The networks with these names. Raises ValueError in training mode, where batch-mates may change a score."""
        networks = [getattr(self, name) for name in names]
        if any(network.training for network in networks):
            raise ValueError("scoring needs every network in eval mode")
        return networks

    def means(self, x_B: Tensor) -> Tensor:
        """What discriminators that are fitted at last see of their input (B, Z), float32: the VAE's latent means, or
        without a VAE the latents of embeddings."""
        return x_B if self.vae is None else self.vae.encode(x_B)[0].float()

    def latents(self, x_B: Tensor, mean_BZ: Tensor | None = None) -> Tensor:
        """The latents (B, Z) by which items are compared, float32: those of embeddings where there are some, else the
        VAE's means; without a VAE the features of the first discriminator, because those of two are two spaces; without
        a method those of the task learner, or without one coarse pixels.

        `mean_BZ` are those of `means`, where the caller has them: the encoder then does not run again.
        """
        if self.embedding is not None:
            return x_B
        if self.projection is not None:
            return self.task_latents(pooled(self.task.features(x_B)) if self.task is not None else coarse(x_B))
        if isinstance(self.discriminators, ImageDiscriminators):
            return self.discriminators.latents(x_B)
        return self.means(x_B) if mean_BZ is None else mean_BZ

    def task_latents(self, feature_BD: Tensor) -> Tensor:
        """`latents` of the task learner's features of each image, where these make the latents."""
        assert self.projection is not None
        latent_BZ: Tensor = self.projection(feature_BD.float())
        return latent_BZ

    def modules(self) -> list[nn.Module]:
        """All that there are."""
        return [part for part in (*self[:-1], *self.summaries.values()) if part is not None]

    def ready(self, device: torch.device | str = "cpu") -> "Networks":
        """The same networks, in eval mode on a device."""
        for network in self.modules():
            network.eval().to(device)
        return self

    def files(self) -> dict[str, nn.Module]:
        """The module of each file of weights, by name."""
        singles: dict[str, nn.Module | None] = {
            "vae": self.vae,
            "centroid": self.centroid,
            "task": self.task,
            "embedding": self.embedding,
            "projection": self.projection,
        }
        singles |= {f"{SUMMARY}{name}": summary for name, summary in self.summaries.items()}
        folds = self.discriminators.folds if self.discriminators is not None else ()
        files = {f"{name}.safetensors": module for name, module in singles.items() if module is not None}
        return files | {f"discriminator-{number}.safetensors": fold for number, fold in enumerate(folds)}


def vaal_networks(sizes: Sizes) -> Networks:
    """A VAE and discriminators on its latents."""
    activation = nn.ReLU if sizes.preset == "paper" else nn.SiLU
    return Networks(_vae(sizes), Discriminators(sizes.num_folds, sizes.shape, activation))


def vae_only_networks(sizes: Sizes) -> Networks:
    """A VAE, and the labelled pool's centroid in its latent space."""
    vae = _vae(sizes)
    return Networks(vae, centroid=Centroid(vae.num_latents))


def pixel_networks(sizes: Sizes) -> Networks:
    """Discriminators on pixels."""
    return Networks(None, PixelDiscriminators(sizes.num_folds, sizes.image_size, sizes.num_channels, sizes.shape))


def feature_networks(sizes: Sizes) -> Networks:
    """Discriminators on features of their own; on embeddings, straight on these."""
    if sizes.vector_length:
        return Networks(None, VectorDiscriminators(sizes.num_folds, sizes.vector_length, sizes.shape))
    return Networks(None, FeatureDiscriminators(sizes.num_folds, sizes.image_size, sizes.num_channels, sizes.shape))


def _vae(sizes: Sizes) -> Autoencoder:
    if sizes.vector_length:
        return VectorVAE(sizes.vector_length, sizes.shape)
    if sizes.preset == "paper":
        return PaperVAE(sizes.image_size, sizes.num_channels)
    return VAE(sizes.image_size, sizes.num_channels, sizes.shape)
