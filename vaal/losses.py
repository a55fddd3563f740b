"""The objectives of VAAL (Sinha, Ebrahimi, Darrell 2019, arXiv 1904.00370), one function an equation.

Every reduction is part of the contract. Sums over pixels and latent units, means over the batch: the balance of
the terms then depends neither on the batch size nor on the number of workers, and the posterior does not collapse.

Shape suffixes: B batch, C channels, H height, W width, Z latent units, K folds.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PIXEL_VARIANCE = 0.1
"""Variance of the Gaussian p(x|z) for pixels in [-1, 1]; it sets the balance of reconstruction and KL."""


def gaussian_kl(mean_BZ: Tensor, logvar_BZ: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, summed over Z and averaged over B. A scalar."""
    kl_B = 0.5 * (mean_BZ.square() + logvar_BZ.exp() - 1 - logvar_BZ).sum(dim=1)
    return kl_B.mean()


def reconstruction_loss(image_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """-log N(target; image, PIXEL_VARIANCE) in nats, summed over C, H, W and averaged over B. A scalar."""
    squared_B = (image_BCHW - target_BCHW).square().flatten(1).sum(dim=1)
    num_pixels = target_BCHW[0].numel()
    constant = 0.5 * num_pixels * math.log(2 * math.pi * PIXEL_VARIANCE)
    return squared_B.mean() / (2 * PIXEL_VARIANCE) + constant


def transductive_loss(
    image_BCHW: Tensor, target_BCHW: Tensor, mean_BZ: Tensor, logvar_BZ: Tensor, beta: float
) -> Tensor:
    """Eq. 1, negated, for the items of one pool: reconstruction + beta * KL, in nats an item. A scalar.

    The objective is this function of the labelled pool plus this function of the unlabelled pool.
    """
    return reconstruction_loss(image_BCHW, target_BCHW) + beta * gaussian_kl(mean_BZ, logvar_BZ)


def adversarial_loss(labelled_BK: Tensor, unlabelled_BK: Tensor) -> Tensor:
    """Eq. 2: the VAE is rewarded when both pools look labelled. Logits in, nats out, averaged over B and K."""
    return F.softplus(-labelled_BK).mean() + F.softplus(-unlabelled_BK).mean()


def discriminator_loss(
    labelled_BK: Tensor, unlabelled_BK: Tensor, labelled_fold_B: Tensor, unlabelled_fold_B: Tensor
) -> Tensor:
    """Eq. 3: labelled is 1, unlabelled is 0; cross-fitted and summed over the K discriminators. Logits in, nats out.

    Discriminator k is trained on the items of every fold but k. Its loss is divided by the expected number of such
    items, B (K - 1) / K, not by their actual number: a sum over items can be split over workers without change.
    """
    return _cross_fitted(F.softplus(-labelled_BK), labelled_fold_B) + _cross_fitted(
        F.softplus(unlabelled_BK), unlabelled_fold_B
    )


def _cross_fitted(loss_BK: Tensor, fold_B: Tensor) -> Tensor:
    num_items, num_folds = loss_BK.shape
    if num_folds == 1:
        return loss_BK.mean()
    trains_BK = fold_B[:, None] != torch.arange(num_folds, device=fold_B.device)
    return (loss_BK * trains_BK).sum() / (num_items * (num_folds - 1) / num_folds)
