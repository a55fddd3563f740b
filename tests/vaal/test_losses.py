"""The losses against torch.distributions, torch's own BCE, and values derived by hand."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from vaal.losses import (
    PIXEL_VARIANCE,
    adversarial_loss,
    discriminator_loss,
    gaussian_kl,
    kl_per_unit,
    reconstruction_loss,
    transductive_loss,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_agrees_with_torch_distributions() -> None:
    mean, logvar = random(5, 3), random(5, 3, seed=1)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(dim=1).mean()
    torch.testing.assert_close(gaussian_kl(mean, logvar), expected)


def test_kl_by_hand() -> None:
    # One unit with mean 1 and variance 1: KL = 1/2. Two such units and one that equals the prior: 1.
    mean = torch.tensor([[1.0, 1.0, 0.0]])
    torch.testing.assert_close(gaussian_kl(mean, torch.zeros(1, 3)), torch.tensor(1.0))


def test_kl_of_the_units_agrees_with_torch_distributions() -> None:
    mean, logvar = random(5, 3), random(5, 3, seed=1)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean(dim=0)
    torch.testing.assert_close(kl_per_unit(mean, logvar), expected)


def test_reconstruction_is_a_gaussian_log_likelihood() -> None:
    image, target = random(4, 3, 5, 5), random(4, 3, 5, 5, seed=1)
    expected = -Normal(image, math.sqrt(PIXEL_VARIANCE)).log_prob(target).sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(reconstruction_loss(image, target), expected)


def test_balance_of_the_terms_does_not_depend_on_the_batch_size() -> None:
    image, target, mean, logvar = random(4, 3, 5, 5), random(4, 3, 5, 5, seed=1), random(4, 6), random(4, 6, seed=2)
    once = transductive_loss(image, target, mean, logvar, beta=2.0)
    twice = transductive_loss(*(torch.cat([t, t]) for t in (image, target, mean, logvar)), beta=2.0)
    torch.testing.assert_close(once, twice)
    parts = reconstruction_loss(image, target) + 2 * gaussian_kl(mean, logvar)
    torch.testing.assert_close(once, parts)


def test_adversarial_loss_wants_both_pools_to_look_labelled() -> None:
    labelled, unlabelled = random(6, 1), random(6, 1, seed=1)
    ones = torch.ones(6, 1)
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(adversarial_loss(labelled, unlabelled), bce(labelled, ones) + bce(unlabelled, ones))


def test_one_discriminator_is_the_papers_equation_3() -> None:
    labelled, unlabelled = random(6, 1), random(6, 1, seed=1)
    bce = F.binary_cross_entropy_with_logits
    expected = bce(labelled, torch.ones(6, 1)) + bce(unlabelled, torch.zeros(6, 1))
    fold = torch.zeros(6, dtype=torch.int64)
    torch.testing.assert_close(discriminator_loss(labelled, unlabelled, fold, fold), expected)


def test_discriminator_k_learns_nothing_from_fold_k() -> None:
    labelled = random(6, 3).requires_grad_()
    unlabelled = random(6, 3, seed=1).requires_grad_()
    fold = torch.tensor([0, 1, 2, 0, 1, 2])
    discriminator_loss(labelled, unlabelled, fold, fold.flip(0)).backward()
    for gradient, folds in ((labelled.grad, fold), (unlabelled.grad, fold.flip(0))):
        assert gradient is not None
        is_own = folds[:, None] == torch.arange(3)
        assert (gradient[is_own] == 0).all()
        assert (gradient[~is_own] != 0).all()


def test_cross_fitted_loss_can_be_split_over_workers() -> None:
    labelled, unlabelled = random(8, 2), random(8, 2, seed=1)
    fold = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1])
    whole = discriminator_loss(labelled, unlabelled, fold, fold)
    halves = [discriminator_loss(labelled[h], unlabelled[h], fold[h], fold[h]) for h in (slice(4), slice(4, 8))]
    torch.testing.assert_close(whole, (halves[0] + halves[1]) / 2)


def test_a_discriminator_that_knows_nothing_pays_two_ln_two_a_fold() -> None:
    zeros, fold = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(discriminator_loss(zeros, zeros, fold, fold), torch.tensor(4 * math.log(2)))
