"""One iteration of Algorithm 1 does what its equations say, to the module they belong to and to no other."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.updater import OptimizerUpdater
from vaal.losses import LossWeights, adversarial_loss, discriminator_loss, transductive_loss
from vaal.networks import VAE, Discriminators, NetworkShape
from vaal.step import MEMORISATION_LIMIT, Batch, MemorisationGuard, PoolBatch, Updates, vaal_step

SHAPE = NetworkShape(width=8, max_width=8, num_latents=4, discriminator_width=8)
WEIGHTS = LossWeights(beta=0.5, transductive=0.1, adversarial=3.0, labelled_share=(0.4, 0.7))
RATE = 1e-3


def networks() -> tuple[VAE, Discriminators]:
    torch.manual_seed(0)
    return VAE(8, 1, SHAPE), Discriminators(2, SHAPE)


def batch(seed: int = 1, size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * size, 1, 8, 8, generator=generator)
    fold = torch.randint(2, (2 * size,), generator=generator)
    noise = torch.randn(2 * size, 4, generator=generator)
    return Batch(PoolBatch(x[:size], fold[:size]), PoolBatch(x[size:], fold[size:]), noise)


def part_of(whole: Batch, begin: int, end: int, weight: float) -> Batch:
    size = len(whole.labelled.fold_B)
    pools = (PoolBatch(p.x_BCHW[begin:end], p.fold_B[begin:end]) for p in (whole.labelled, whole.unlabelled))
    noise = torch.cat([whole.noise_BZ[begin:end], whole.noise_BZ[size + begin : size + end]])
    return Batch(*pools, noise, weight)  # type: ignore[call-arg]


def sgd(module: nn.Module, accumulation: int = 1, clipping: float = 0.0) -> OptimizerUpdater[nn.Module]:
    return OptimizerUpdater(module, torch.optim.SGD(module.parameters(), lr=RATE), accumulation, clipping)


def single(*batches: Batch) -> Iterator[list[Batch]]:
    return iter([[one] for one in batches])


def descend(module: nn.Module, loss: Tensor) -> None:
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter -= RATE * gradient


def vae_losses(vae: VAE, discriminators: Discriminators, b: Batch) -> tuple[Tensor, Tensor]:
    size = len(b.labelled.fold_B)
    image_l, mean_l, logvar_l = vae(b.labelled.x_BCHW, b.noise_BZ[:size])
    image_u, mean_u, logvar_u = vae(b.unlabelled.x_BCHW, b.noise_BZ[size:])
    transductive = transductive_loss(image_l, b.labelled.x_BCHW, mean_l, logvar_l, 0.5) + transductive_loss(
        image_u, b.unlabelled.x_BCHW, mean_u, logvar_u, 0.5
    )
    return transductive, adversarial_loss(discriminators(mean_l), discriminators(mean_u))


def eq_3(vae: VAE, discriminators: Discriminators, b: Batch) -> Tensor:
    with torch.no_grad():
        mean_l, mean_u = vae.encode(b.labelled.x_BCHW)[0], vae.encode(b.unlabelled.x_BCHW)[0]
    folds = (b.labelled.fold_B, b.unlabelled.fold_B)
    return discriminator_loss(discriminators(mean_l), discriminators(mean_u), *folds, WEIGHTS.labelled_share).trained


def assert_same(found: tuple[nn.Module, ...], expected: tuple[nn.Module, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name, parameter in one.named_parameters():
            torch.testing.assert_close(parameter, other.get_parameter(name), msg=name)


@pytest.mark.parametrize(("num_vae", "num_discriminators"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_an_iteration_is_the_equations_written_out(num_vae: int, num_discriminators: int) -> None:
    vae, discriminators = networks()
    expected_vae, expected_discriminators = copy.deepcopy((vae, discriminators))
    drawn = [batch(seed) for seed in range(num_vae + num_discriminators - 1)]
    source = single(*drawn)
    losses = vaal_step(sgd(vae), sgd(discriminators), source, WEIGHTS, Updates(num_vae, num_discriminators))
    assert next(source, None) is None
    for b in drawn[:num_vae]:
        transductive, adversarial = vae_losses(expected_vae, expected_discriminators, b)
        descend(expected_vae, 0.1 * transductive + 3.0 * adversarial)
    # The discriminators see the latents of the VAE that has just moved, on the batch that moved it and then on others.
    for b in drawn[num_vae - 1 :]:
        discriminator = eq_3(expected_vae, expected_discriminators, b)
        descend(expected_discriminators, discriminator)
    assert losses.transductive is not None
    assert losses.adversarial is not None
    assert losses.discriminator is not None
    torch.testing.assert_close(losses.transductive, transductive.detach())
    torch.testing.assert_close(losses.adversarial, adversarial.detach())
    torch.testing.assert_close(losses.discriminator, discriminator.detach())
    assert_same((vae, discriminators), (expected_vae, expected_discriminators))


@pytest.mark.parametrize("clipping", [0.0, 0.7])
def test_micro_batches_of_unequal_size_are_one_batch(clipping: float) -> None:
    whole = batch(size=6)
    parts = [part_of(whole, 0, 1, 3 / 6), part_of(whole, 1, 4, 9 / 6), part_of(whole, 4, 6, 6 / 6)]
    found, expected = networks(), networks()
    one = vaal_step(*(sgd(n, 3, clipping) for n in found), iter([parts]), WEIGHTS, Updates())
    two = vaal_step(*(sgd(n, clipping=clipping) for n in expected), single(whole), WEIGHTS, Updates())
    for loss, other in zip(one, two, strict=True):
        torch.testing.assert_close(loss, other)
    assert_same(found, expected)


def test_clipping_bounds_the_gradient() -> None:
    found, before = networks(), networks()
    vaal_step(*(sgd(n, clipping=1e-3) for n in found), single(batch()), WEIGHTS, Updates())
    for network, old in zip(found, before, strict=True):
        moved = [(p - q).detach() for p, q in zip(network.parameters(), old.parameters(), strict=True)]
        assert float(torch.cat([m.flatten() for m in moved]).norm()) == pytest.approx(RATE * 1e-3, rel=0.02)


def test_the_vaes_step_leaves_no_gradient_in_the_discriminators() -> None:
    vae, discriminators = networks()

    class Spy(OptimizerUpdater[nn.Module]):
        def apply(self, loss: Tensor) -> None:
            super().apply(loss)
            assert all(parameter.grad is None for parameter in discriminators.parameters())

    spy = Spy(vae, torch.optim.SGD(vae.parameters(), lr=RATE))
    vaal_step(spy, sgd(discriminators), single(batch()), WEIGHTS, Updates())
    assert all(parameter.requires_grad for parameter in discriminators.parameters())


def test_a_network_without_updates_is_measured_and_left_alone() -> None:
    vae, discriminators = networks()
    before = copy.deepcopy((vae, discriminators))
    losses = vaal_step(sgd(vae), sgd(discriminators), single(batch()), WEIGHTS, Updates(0, 0))
    assert losses.transductive is None
    torch.testing.assert_close(losses.discriminator, eq_3(*before, batch()).detach())
    assert_same((vae, discriminators), before)


def test_a_vae_without_updates_keeps_its_running_statistics() -> None:
    class Normed(VAE):
        def __init__(self) -> None:
            super().__init__(8, 1, SHAPE)
            self.norm = nn.BatchNorm2d(1)

        def encode(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
            return super().encode(self.norm(x_BCHW))

    vae, (_, discriminators) = Normed(), networks()
    for num_updates, is_same in ((0, True), (1, False)):
        before = vae.norm.running_mean.clone()  # type: ignore[union-attr,operator]
        vaal_step(sgd(vae), sgd(discriminators), single(batch()), WEIGHTS, Updates(num_updates, 1))
        assert torch.equal(before, vae.norm.running_mean) == is_same  # type: ignore[arg-type]


def test_a_vae_alone_has_no_adversary() -> None:
    vae, discriminators = networks()
    expected = copy.deepcopy(vae)
    losses = vaal_step(sgd(vae), None, single(batch()), WEIGHTS, Updates())
    descend(expected, 0.1 * vae_losses(expected, discriminators, batch())[0])
    assert losses.adversarial is losses.discriminator is None
    assert_same((vae,), (expected,))


def test_discriminators_alone_see_the_images() -> None:
    seen: list[Any] = []

    class OnImages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 2)

        def forward(self, x_BCHW: Tensor) -> Tensor:
            seen.append(x_BCHW)
            logit_BK: Tensor = self.linear(x_BCHW.flatten(1))
            return logit_BK

    losses = vaal_step(None, sgd(OnImages()), single(batch()), WEIGHTS, Updates(0, 1))
    assert losses.transductive is None
    torch.testing.assert_close(seen[0], torch.cat([batch().labelled.x_BCHW, batch().unlabelled.x_BCHW]))


def test_the_guard_holds_what_memorises_and_lets_go_when_that_is_over() -> None:
    guard = MemorisationGuard()
    for _ in range(20):
        guard.observe(trained=2.0, held_out=2.0 + 0.9 * 2 * MEMORISATION_LIMIT, num_folds=2)
    assert not guard.is_holding
    for _ in range(20):
        guard.observe(trained=1.0, held_out=1.0 + 2.2 * MEMORISATION_LIMIT, num_folds=2)
    assert guard.is_holding
    kept = MemorisationGuard(guard.gap, guard.is_holding)
    for _ in range(20):
        guard.observe(trained=2.0, held_out=2.0 + 0.7 * 2 * MEMORISATION_LIMIT, num_folds=2)
    assert guard.is_holding
    for _ in range(20):
        guard.observe(trained=2.0, held_out=2.1, num_folds=2)
        kept.observe(trained=2.0, held_out=2.1, num_folds=2)
    assert not guard.is_holding
    assert not kept.is_holding
    single_fold = MemorisationGuard()
    for _ in range(20):
        single_fold.observe(trained=0.0, held_out=9.0, num_folds=1)
    assert not single_fold.is_holding
