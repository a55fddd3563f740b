"""VAAL on embeddings: a VAE of vectors, and discriminators straight on them.

Shape suffixes: B batch, D length of an embedding, Z latent units, K folds.
"""

from torch import nn

from vaal.ablations import ImageDiscriminators
from vaal.networks import Autoencoder, NetworkShape, initialise


def _layers(*sizes: int) -> nn.Sequential:
    """Linear layers from each size to the next, with an activation behind each. Initialised."""
    pairs = [nn.Sequential(nn.Linear(sizes[n], sizes[n + 1]), nn.SiLU()) for n in range(len(sizes) - 1)]
    network = nn.Sequential(*pairs)
    initialise(network)
    return network


class VectorVAE(Autoencoder):
    """A beta-VAE of embeddings (B, D) on one scale, see `vaal.standardise`.

    Its reconstruction is the mean of a Gaussian, as that of pixels: see `vaal.losses.reconstruction_loss`.
    """

    def __init__(self, length: int, shape: NetworkShape) -> None:
        wide, narrow = 2 * shape.max_width, shape.max_width
        to_vector = nn.Linear(wide, length)
        initialise(to_vector, linear=[to_vector])
        decoder = nn.Sequential(*_layers(shape.num_latents, narrow, wide), to_vector)
        super().__init__(_layers(length, wide, narrow), narrow, shape.num_latents, decoder)


class VectorDiscriminators(ImageDiscriminators):
    """Discriminators only, straight on embeddings."""

    def __init__(self, num_folds: int, length: int, shape: NetworkShape) -> None:
        super().__init__([nn.Flatten() for _ in range(num_folds)], length, shape)
