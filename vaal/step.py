"""One iteration of VAAL's Algorithm 1 (arXiv 1904.00370), over anything that can move a module's weights.

Distribution wraps this module from outside: under ZeRO the two updaters are DeepSpeed engines, in plain PyTorch they
are a module and its optimizer, and the mathematics cannot tell.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vaal.losses import adversarial_loss, discriminator_loss, transductive_loss
from vaal.networks import VAE, Discriminators

ModuleT = TypeVar("ModuleT", bound=nn.Module)
ModuleT_co = TypeVar("ModuleT_co", bound=nn.Module, covariant=True)


class Updater(Protocol[ModuleT_co]):
    """A module together with whatever moves its weights."""

    @property
    def module(self) -> ModuleT_co:
        """The bare module, for forward passes that leave its weights alone."""

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """A forward pass whose loss will be given to `apply`."""

    def apply(self, loss: Tensor) -> None:
        """Backpropagate `loss` into the module and take one optimizer step."""


class OptimizerUpdater(Generic[ModuleT]):
    """The updater of one process without DeepSpeed."""

    def __init__(self, module: ModuleT, optimizer: torch.optim.Optimizer) -> None:
        self.module = module
        self._optimizer = optimizer

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs: Tensor | tuple[Tensor, ...] = self.module(*inputs)
        return outputs

    def apply(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()


class PoolBatch(NamedTuple):
    """Items of one pool: images (B, C, H, W) in [-1, 1] and the fold of each item (B,), int64."""

    x_BCHW: Tensor
    fold_B: Tensor


class LossWeights(NamedTuple):
    """beta of Eq. 1 and lambda1, lambda2 of the full objective lambda1 * L_trd + lambda2 * L_adv."""

    beta: float
    transductive: float
    adversarial: float


class StepLosses(NamedTuple):
    """Detached scalars of one step in nats: Eq. 1 over both pools, Eq. 2, and Eq. 3 summed over the folds."""

    transductive: Tensor
    adversarial: Tensor
    discriminator: Tensor


def vaal_step(
    vae: Updater[VAE],
    discriminators: Updater[Discriminators],
    labelled: PoolBatch,
    unlabelled: PoolBatch,
    weights: LossWeights,
    noise_BZ: Tensor,
) -> StepLosses:
    """Move the VAE once, then the discriminators once, as Algorithm 1 alternates them.

    `noise_BZ` is standard normal, with a row for every labelled item and then for every unlabelled one.
    """
    num_labelled, beta = len(labelled.x_BCHW), weights.beta
    x_BCHW = torch.cat([labelled.x_BCHW, unlabelled.x_BCHW])

    # The discriminators are frozen, and called as a bare module: otherwise the VAE's backward pass would fill their
    # gradients too, which ZeRO 1 and 2 add silently to the next step and ZeRO 3 refuses.
    with _frozen(discriminators.module):
        image, mean, logvar = vae(x_BCHW, noise_BZ)
        logit_BK = discriminators.module(mean)
        transductive_labelled, transductive_unlabelled = (
            transductive_loss(image[pool].float(), x_BCHW[pool].float(), mean[pool].float(), logvar[pool].float(), beta)
            for pool in (slice(num_labelled), slice(num_labelled, None))
        )
        transductive = transductive_labelled + transductive_unlabelled
        adversarial = adversarial_loss(logit_BK[:num_labelled].float(), logit_BK[num_labelled:].float())
        vae.apply(weights.transductive * transductive + weights.adversarial * adversarial)

    with torch.no_grad():
        mean, _ = vae.module.encode(x_BCHW)
    logit_BK = discriminators(mean)
    assert isinstance(logit_BK, Tensor)
    discriminator = discriminator_loss(
        logit_BK[:num_labelled].float(), logit_BK[num_labelled:].float(), labelled.fold_B, unlabelled.fold_B
    )
    discriminators.apply(discriminator)
    return StepLosses(transductive.detach(), adversarial.detach(), discriminator.detach())


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
