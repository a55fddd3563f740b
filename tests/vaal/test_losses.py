"""The losses against torch.distributions, torch's own BCE, and values derived by hand."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from vaal.losses import (
    PIXEL_VARIANCE,
    LossWeights,
    adversarial_loss,
    discriminator_loss,
    gaussian_kl,
    kl_per_unit,
    reconstruction_loss,
    transductive_loss,
    vaal_objective,
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
    torch.testing.assert_close(discriminator_loss(labelled, unlabelled, fold, fold).trained, expected)


def test_discriminator_k_learns_nothing_from_fold_k() -> None:
    labelled = random(6, 3).requires_grad_()
    unlabelled = random(6, 3, seed=1).requires_grad_()
    fold = torch.tensor([0, 1, 2, 0, 1, 2])
    discriminator_loss(labelled, unlabelled, fold, fold.flip(0)).trained.backward()
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
    for loss, one, two in zip(whole, *halves, strict=True):
        torch.testing.assert_close(loss, (one + two) / 2)


def test_a_discriminator_that_knows_nothing_pays_two_ln_two_a_fold() -> None:
    zeros, fold = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    for loss in discriminator_loss(zeros, zeros, fold, fold):
        torch.testing.assert_close(loss, torch.tensor(4 * math.log(2)))


def test_the_held_out_loss_is_that_of_the_items_a_discriminator_does_not_train_on() -> None:
    labelled, unlabelled = random(6, 2), random(6, 2, seed=1)
    fold = torch.tensor([0, 1, 0, 1, 0, 1])
    loss = discriminator_loss(labelled, unlabelled, fold, fold)
    expected = sum(
        F.softplus(-labelled[fold == k, k]).mean() + F.softplus(unlabelled[fold == k, k]).mean() for k in range(2)
    )
    torch.testing.assert_close(loss.held_out, torch.as_tensor(expected))
    assert float(discriminator_loss(labelled[:, :1], unlabelled[:, :1], fold * 0, fold * 0).held_out) == 0


def test_a_fold_without_labelled_items_holds_out_the_unlabelled_ones_alone() -> None:
    labelled, unlabelled = random(4, 2), random(4, 2, seed=1)
    fold, even = torch.tensor([1, 1, 1, 1]), torch.tensor([0, 1, 0, 1])
    loss = discriminator_loss(labelled, unlabelled, fold, even, (1.0, 0.0 + 1e-9))
    own = [F.softplus(unlabelled[even == k, k]).mean() for k in range(2)] + [F.softplus(-labelled[:, 1]).mean()]
    torch.testing.assert_close(loss.held_out, torch.stack(own).sum())


def test_unequal_folds_and_pools_weigh_both_classes_alike() -> None:
    # Of five labelled items one is in fold 0: discriminator 0 trains on four, discriminator 1 on one.
    labelled, unlabelled = random(5, 2), random(8, 2, seed=1)
    fold, even = torch.tensor([0, 1, 1, 1, 1]), torch.tensor([0, 1] * 4)
    share = (0.8, 0.2)
    loss = discriminator_loss(labelled, unlabelled, fold, even, share)
    expected = sum(
        F.softplus(-labelled[fold != k, k]).mean() + F.softplus(unlabelled[even != k, k]).mean() for k in range(2)
    )
    torch.testing.assert_close(loss.trained, torch.as_tensor(expected))
    twice = discriminator_loss(torch.cat([labelled, labelled]), unlabelled, torch.cat([fold, fold]), even, share)
    torch.testing.assert_close(twice.trained, loss.trained)


def test_the_full_objective_weighs_its_parts() -> None:
    weights = LossWeights(transductive=0.5, adversarial=3.0)
    torch.testing.assert_close(
        vaal_objective(torch.tensor(2.0), torch.tensor(5.0), weights), torch.tensor(0.5 * 2.0 + 3.0 * 5.0)
    )


def test_the_authors_reductions_are_ours_with_other_weights() -> None:
    """Their MSE averaged over all elements + KL summed over batch and units, as their solver.py has it, a pool."""
    image, target, mean, logvar = random(4, 3, 5, 5), random(4, 3, 5, 5, seed=1), random(4, 6), random(4, 6, seed=2)
    authors = F.mse_loss(image, target) - 0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
    scale = 2 * PIXEL_VARIANCE / 75
    ours = scale * transductive_loss(image, target, mean, logvar, beta=4 / scale)
    constant = scale * 0.5 * 75 * math.log(2 * math.pi * PIXEL_VARIANCE)
    torch.testing.assert_close(ours - constant, authors)
