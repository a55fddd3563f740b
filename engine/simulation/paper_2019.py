"""VAAL as its authors ran it (sinhasam/vaal, commit 67263f3), for comparison in simulations alone.

Its reductions differ from the paper's equations: the reconstruction is a mean over everything, the KL term a sum over
batch and units, which then outweighs it. BatchNorm is left in training mode while the pool is scored, in shuffled
batches and with random flips. So a score depends on the images that share its batch and on chance: no law of this
project holds for it, and no campaign may train it.

The network is `vaal.paper`'s; its width is a quarter unless another is given, so that CPUs carry it. The discriminator
is as wide as theirs.

Shape suffixes: B batch, N items, L labelled, U unlabelled, S image side in pixels, C channels, Z latent units.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engine.config.train_options import TrainConfig
from vaal.networks import Discriminators
from vaal.paper import PaperVAE, paper_shape

WIDTHS = (32, 64, 128, 256)
"""Channels, a quarter of the authors'."""


class Weights(NamedTuple):
    """beta of Eq. 1, and lambda2 of the VAE's objective."""

    beta: float = 1.0
    adversarial: float = 1.0


class Scored(NamedTuple):
    """Of all N items: the labelled-logit (N,), and the mean and log-variance of q(z|x) (N, Z), all float32; and the
    squared error per pixel (N,), of images in [-1, 1]."""

    logit_N: Tensor
    mean_NZ: Tensor
    logvar_NZ: Tensor
    squared_error_N: Tensor


def transductive(image_BCSS: Tensor, target_BCSS: Tensor, mean_BZ: Tensor, logvar_BZ: Tensor, beta: float) -> Tensor:
    """The authors' Eq. 1 for one pool: mean squared error over all elements + beta * KL summed over batch and units."""
    kl = -0.5 * (1 + logvar_BZ - mean_BZ.square() - logvar_BZ.exp()).sum()
    return functional.mse_loss(image_BCSS, target_BCSS) + beta * kl


def cross_entropy(logit_B1: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of sigmoid(logit), averaged over the batch."""
    probability_B1 = torch.sigmoid(logit_B1)
    return functional.binary_cross_entropy(probability_B1, torch.full_like(probability_B1, target))


class Paper2019:
    """The networks and their training."""

    def __init__(
        self, image_size: int, channels: int, seed: int, widths: Sequence[int] = WIDTHS, device: str = "cpu"
    ) -> None:
        """Raises ValueError if `image_size` is not a multiple of 16."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.vae = PaperVAE(image_size, channels, widths=widths).to(device)
            self.discriminator = Discriminators(1, paper_shape(image_size), nn.ReLU).to(device)
        self._device = device
        # All that is drawn comes from the CPU: the same on every device.
        self._generator = torch.Generator().manual_seed(seed)

    def train(
        self, pixel_LSSC: NDArray[np.uint8], pixel_USSC: NDArray[np.uint8], steps: int, train: TrainConfig
    ) -> None:
        """`steps` iterations of train.vae_steps updates of the VAE and train.discriminator_steps of the discriminator,
        each on train.batch_size images of either pool, drawn with replacement and flipped at random."""
        weights = Weights(train.beta, train.adversarial_weight)
        adam = {
            network: torch.optim.Adam(network.parameters(), train.learning_rate)
            for network in (self.vae, self.discriminator)
        }
        for _ in range(steps):
            for _ in range(train.vae_steps):
                pools = self._draw(pixel_LSSC, train.batch_size), self._draw(pixel_USSC, train.batch_size)
                _update(adam[self.vae], self.vae_loss(*pools, weights))
            for _ in range(train.discriminator_steps):
                pools = self._draw(pixel_LSSC, train.batch_size), self._draw(pixel_USSC, train.batch_size)
                _update(adam[self.discriminator], self.discriminator_loss(*pools))

    def vae_loss(self, labelled_BCSS: Tensor, unlabelled_BCSS: Tensor, weights: Weights) -> Tensor:
        """Both pools' transductive terms + lambda2 * the cross-entropies of looking labelled. The discriminator sees
        the mean, not a sample."""
        loss = labelled_BCSS.new_zeros(())
        for x_BCSS in (labelled_BCSS, unlabelled_BCSS):
            noise_BZ = torch.randn(len(x_BCSS), self.vae.num_latents, generator=self._generator).to(self._device)
            image_BCSS, mean_BZ, logvar_BZ = self.vae(x_BCSS, noise_BZ)
            loss = loss + transductive(image_BCSS, x_BCSS, mean_BZ, logvar_BZ, weights.beta)
            loss = loss + weights.adversarial * cross_entropy(self.discriminator(mean_BZ), 1.0)
        return loss

    def discriminator_loss(self, labelled_BCSS: Tensor, unlabelled_BCSS: Tensor) -> Tensor:
        """The cross-entropies of labelled as 1 and unlabelled as 0."""
        with torch.no_grad():
            means = [self.vae.encode(x_BCSS)[0] for x_BCSS in (labelled_BCSS, unlabelled_BCSS)]
        return cross_entropy(self.discriminator(means[0]), 1.0) + cross_entropy(self.discriminator(means[1]), 0.0)

    @torch.no_grad()
    def score(self, pixel_NSSC: NDArray[np.uint8], batch_size: int) -> Scored:
        """Every item once, in shuffled batches, flipped at random, by networks in training mode."""
        order_N = torch.randperm(len(pixel_NSSC), generator=self._generator)
        parts = []
        for place_B in _whole(torch.split(order_N, batch_size)):
            x_BCSS = self._flipped(pixel_NSSC[place_B.numpy()])
            image_BCSS, mean_BZ, logvar_BZ = self.vae(x_BCSS, x_BCSS.new_zeros(len(x_BCSS), self.vae.num_latents))
            error_B = (image_BCSS - x_BCSS).square().mean(dim=(1, 2, 3))
            found = self.discriminator(mean_BZ)[:, 0], mean_BZ, logvar_BZ, error_B
            parts.append([part.cpu() for part in found])
        back_N = torch.argsort(order_N)
        return Scored(*(torch.cat(column)[back_N] for column in zip(*parts, strict=True)))

    def _draw(self, pixel_NSSC: NDArray[np.uint8], count: int) -> Tensor:
        return self._flipped(pixel_NSSC[torch.randint(len(pixel_NSSC), (count,), generator=self._generator).numpy()])

    def _flipped(self, pixel_BSSC: NDArray[np.uint8]) -> Tensor:
        """Images (B, C, S, S) in [-1, 1], every second one mirrored left to right."""
        x_BCSS = torch.from_numpy(pixel_BSSC).permute(0, 3, 1, 2).float() / 127.5 - 1
        is_flipped_B = torch.rand(len(x_BCSS), generator=self._generator) < 0.5
        return torch.where(is_flipped_B[:, None, None, None], x_BCSS.flip(3), x_BCSS).to(self._device)


def _whole(batches: tuple[Tensor, ...]) -> list[Tensor]:
    """The batches; a last one of a single item, whose spread BatchNorm cannot know, joins the one before."""
    if len(batches) > 1 and len(batches[-1]) == 1:
        return [*batches[:-2], torch.cat(batches[-2:])]
    return [*batches]


def _update(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    adam.step()
