"""The objectives of VAAL (Sinha, Ebrahimi, Darrell 2019, arXiv 1904.00370), one function an equation.

Every reduction is part of the contract. Sums over pixels and latent units, means over the batch: the balance of
the terms then depends neither on the batch size nor on the number of workers, and the posterior does not collapse.

Shape suffixes: B batch, C channels, H height, W width, Z latent units, K folds.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PIXEL_VARIANCE = 0.1
"""Variance of the Gaussian p(x|z) for pixels in [-1, 1]; it sets the balance of reconstruction and KL."""


def kl_per_unit(mean_BZ: Tensor, logvar_BZ: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats of each latent unit, averaged over B. (Z,)."""
    return 0.5 * (mean_BZ.square() + logvar_BZ.exp() - 1 - logvar_BZ).mean(dim=0)


def gaussian_kl(mean_BZ: Tensor, logvar_BZ: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, summed over Z and averaged over B. A scalar."""
    return kl_per_unit(mean_BZ, logvar_BZ).sum()


def reconstruction_loss(image_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """-log N(target; image, PIXEL_VARIANCE) in nats, summed over C, H, W and averaged over B. A scalar."""
    squared_B = (image_BCHW - target_BCHW).square().flatten(1).sum(dim=1)
    num_pixels = target_BCHW[0].numel()
    constant = 0.5 * num_pixels * math.log(2 * math.pi * PIXEL_VARIANCE)
    return squared_B.mean() / (2 * PIXEL_VARIANCE) + constant


def transductive_loss(
    image_BCHW: Tensor, target_BCHW: Tensor, mean_BZ: Tensor, logvar_BZ: Tensor, beta: float
) -> Tensor:
    """Eq. 1, negated, for the items of one pool: reconstruction + beta * KL, in nats per item. A scalar.

    The objective is the sum of this over the labelled and the unlabelled pool.
    """
    return reconstruction_loss(image_BCHW, target_BCHW) + beta * gaussian_kl(mean_BZ, logvar_BZ)


def adversarial_loss(labelled_BK: Tensor, unlabelled_BK: Tensor) -> Tensor:
    """Eq. 2: the VAE is rewarded when both pools look labelled. Logits in, nats out, averaged over B and K."""
    return F.softplus(-labelled_BK).mean() + F.softplus(-unlabelled_BK).mean()


def vaal_objective(transductive: Tensor, adversarial: Tensor, weights: "LossWeights") -> Tensor:
    """The VAE's full objective, lambda1 * L_trd + lambda2 * L_adv (section 3 of the paper). A scalar, nats."""
    return weights.transductive * transductive + weights.adversarial * adversarial


class LossWeights(NamedTuple):
    """beta of Eq. 1, and lambda1 and lambda2 of the full objective.

    `labelled_share` is the share of the labelled pool that discriminator k trains on, for every k. It is empty for
    folds of equal size. See `discriminator_loss`.
    """

    beta: float = 1.0
    transductive: float = 1.0
    adversarial: float = 1.0
    labelled_share: tuple[float, ...] = ()


class DiscriminatorLoss(NamedTuple):
    """Eq. 3, cross-fitted: over the items that train each discriminator, and over those held out from it."""

    trained: Tensor
    held_out: Tensor


def discriminator_loss(
    labelled_BK: Tensor,
    unlabelled_BK: Tensor,
    labelled_fold_B: Tensor,
    unlabelled_fold_B: Tensor,
    labelled_share: tuple[float, ...] = (),
) -> DiscriminatorLoss:
    """Eq. 3: labelled is 1, unlabelled is 0; cross-fitted and summed over the K discriminators. Logits in, nats out.

    Discriminator k is trained on the items of every fold but k. Each pool is averaged separately, so both classes have
    the same weight at any size of the pools and batches: a logit then estimates the log density ratio of the pools, and
    its zero is the same for every fold.

    The divisor is the expected number of training items, B times the share of the pool outside fold k, not their
    number in this batch, so that the sum can be split over workers without change. The share is (K - 1) / K unless
    given; the folds of a small labelled pool are unequal.
    """
    num_folds = labelled_BK.shape[1]
    equal = ((num_folds - 1) / num_folds,) * num_folds
    pools = (
        (F.softplus(-labelled_BK), labelled_fold_B, labelled_share or equal),
        (F.softplus(unlabelled_BK), unlabelled_fold_B, equal),
    )
    if num_folds == 1:
        return DiscriminatorLoss(pools[0][0].mean() + pools[1][0].mean(), labelled_BK.new_zeros(()))
    trained = [_over_folds(loss, fold, share, outside=True) for loss, fold, share in pools]
    held_out = [_over_folds(loss, fold, tuple(1 - s for s in share), outside=False) for loss, fold, share in pools]
    return DiscriminatorLoss(trained[0] + trained[1], (held_out[0] + held_out[1]).detach())


def _over_folds(loss_BK: Tensor, fold_B: Tensor, share: tuple[float, ...], *, outside: bool) -> Tensor:
    """The sum over K of the mean loss of the items outside of fold k, or of those in it."""
    num_items, num_folds = loss_BK.shape
    counts_BK = (fold_B[:, None] != torch.arange(num_folds, device=fold_B.device)) == outside
    # A fold without labelled items has a held-out loss of 0, not 0 / 0.
    share_K = torch.tensor(share, device=loss_BK.device, dtype=loss_BK.dtype).clamp_min(1e-6)
    return ((loss_BK * counts_BK).sum(dim=0) / (num_items * share_K)).sum()
