"""One iteration of Algorithm 1 does what its equations say, to the module they belong to and to no other."""

import copy

import torch

from vaal.losses import adversarial_loss, discriminator_loss, transductive_loss
from vaal.networks import VAE, Discriminators, NetworkShape
from vaal.step import LossWeights, OptimizerUpdater, PoolBatch, vaal_step

SHAPE = NetworkShape(width=8, max_width=8, num_latents=4, discriminator_width=8)
WEIGHTS = LossWeights(beta=0.5, transductive=0.1, adversarial=3.0)


def networks() -> tuple[VAE, Discriminators]:
    torch.manual_seed(0)
    return VAE(8, 1, SHAPE), Discriminators(2, SHAPE)


def batches() -> tuple[PoolBatch, PoolBatch, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 1, 8, 8, generator=generator)
    fold = torch.tensor([0, 1, 0, 1, 1, 0, 1])
    return PoolBatch(x[:3], fold[:3]), PoolBatch(x[3:], fold[3:]), torch.randn(7, 4, generator=generator)


def sgd(module: torch.nn.Module) -> OptimizerUpdater[torch.nn.Module]:
    return OptimizerUpdater(module, torch.optim.SGD(module.parameters(), lr=1e-3))


def test_step_equals_the_equations_written_out() -> None:
    vae, discriminators = networks()
    expected_vae, expected_discriminators = copy.deepcopy(vae), copy.deepcopy(discriminators)
    labelled, unlabelled, noise = batches()
    losses = vaal_step(sgd(vae), sgd(discriminators), labelled, unlabelled, WEIGHTS, noise)

    image_l, mean_l, logvar_l = expected_vae(labelled.x_BCHW, noise[:3])
    image_u, mean_u, logvar_u = expected_vae(unlabelled.x_BCHW, noise[3:])
    transductive = transductive_loss(image_l, labelled.x_BCHW, mean_l, logvar_l, 0.5) + transductive_loss(
        image_u, unlabelled.x_BCHW, mean_u, logvar_u, 0.5
    )
    adversarial = adversarial_loss(expected_discriminators(mean_l), expected_discriminators(mean_u))
    gradients = torch.autograd.grad(0.1 * transductive + 3.0 * adversarial, list(expected_vae.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(expected_vae.parameters(), gradients, strict=True):
            parameter -= 1e-3 * gradient
        # The discriminators see the latents of the VAE that has just moved.
        mean_l, mean_u = expected_vae.encode(labelled.x_BCHW)[0], expected_vae.encode(unlabelled.x_BCHW)[0]
    discriminator = discriminator_loss(
        expected_discriminators(mean_l), expected_discriminators(mean_u), labelled.fold_B, unlabelled.fold_B
    )
    gradients = torch.autograd.grad(discriminator, list(expected_discriminators.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(expected_discriminators.parameters(), gradients, strict=True):
            parameter -= 1e-3 * gradient

    torch.testing.assert_close(losses.transductive, transductive.detach())
    torch.testing.assert_close(losses.adversarial, adversarial.detach())
    torch.testing.assert_close(losses.discriminator, discriminator.detach())
    for moved, expected in ((vae, expected_vae), (discriminators, expected_discriminators)):
        for name, parameter in moved.named_parameters():
            torch.testing.assert_close(parameter, expected.get_parameter(name), msg=name)


def test_the_vaes_step_leaves_no_gradient_in_the_discriminators() -> None:
    vae, discriminators = networks()

    class Spy(OptimizerUpdater[torch.nn.Module]):
        def apply(self, loss: torch.Tensor) -> None:
            super().apply(loss)
            assert all(parameter.grad is None for parameter in discriminators.parameters())

    spy = Spy(vae, torch.optim.SGD(vae.parameters(), lr=1e-3))
    vaal_step(spy, sgd(discriminators), *batches()[:2], WEIGHTS, batches()[2])
    assert all(parameter.requires_grad for parameter in discriminators.parameters())
