"""One iteration of VAAL's Algorithm 1 (arXiv 1904.00370), over anything that can move a module's weights.

Distribution wraps this module from outside: under ZeRO an updater is a DeepSpeed engine, in plain PyTorch it is a
module and its optimizer, and the mathematics cannot tell.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vaal.losses import LossWeights, adversarial_loss, discriminator_loss, transductive_loss, vaal_objective

ModuleT = TypeVar("ModuleT", bound=nn.Module)

MEMORISATION_LIMIT = 0.3
"""Nats by which a discriminator may do worse on the items held from it than on those it trains on. Chance is 1.386."""
_MEMORY = 0.8
"""Weight of the past in the guard's moving average."""


class Updater(Protocol):
    """A module together with whatever moves its weights."""

    @property
    def module(self) -> Any:
        """The bare module, for forward passes that leave its weights alone."""

    def __call__(self, *inputs: Tensor) -> Any:
        """A forward pass whose loss will be given to `apply`."""

    def apply(self, loss: Tensor) -> None:
        """Backpropagate `loss`, and take an optimizer step once every micro-batch of the update is there.

        The gradient is the mean over the micro-batches, and over the workers where there are several.
        """


class OptimizerUpdater(Generic[ModuleT]):
    """The updater of one process without DeepSpeed."""

    def __init__(
        self, module: ModuleT, optimizer: torch.optim.Optimizer, accumulation: int = 1, clipping: float = 0.0
    ) -> None:
        self.module = module
        self._optimizer = optimizer
        self._accumulation, self._clipping = accumulation, clipping
        self._applied = 0

    def __call__(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)

    def apply(self, loss: Tensor) -> None:
        torch.autograd.backward(loss / self._accumulation)
        self._applied += 1
        if self._applied % self._accumulation == 0:
            if self._clipping:
                nn.utils.clip_grad_norm_(self.module.parameters(), self._clipping)
            self._optimizer.step()
            self._optimizer.zero_grad()


class PoolBatch(NamedTuple):
    """Items of one pool: images (B, C, H, W) in [-1, 1] and the fold of each item (B,), int64."""

    x_BCHW: Tensor
    fold_B: Tensor


class Batch(NamedTuple):
    """A micro-batch of both pools, of equally many items each.

    `noise_BZ` is standard normal, with a row for every labelled item and then for every unlabelled one. `weight` is
    this micro-batch's share of the update's items, relative to that of an average one: what makes micro-batches and
    workers of unequal size add up to the mean over all items.
    """

    labelled: PoolBatch
    unlabelled: PoolBatch
    noise_BZ: Tensor
    weight: float = 1.0


class Updates(NamedTuple):
    """How often each network is moved in an iteration. 0 leaves it as it is, and measures it all the same."""

    vae: int = 1
    discriminators: int = 1


class StepLosses(NamedTuple):
    """Detached scalars of an iteration's last updates, in nats; None for what there is not.

    Eq. 1 over both pools; Eq. 2; Eq. 3 summed over the folds, on the items that train each discriminator; and on the
    items that are held from it, where there are several folds.
    """

    transductive: Tensor | None = None
    adversarial: Tensor | None = None
    discriminator: Tensor | None = None
    held_out: Tensor | None = None


def vaal_step(
    vae: Updater | None,
    discriminators: Updater | None,
    batches: Iterator[Sequence[Batch]],
    weights: LossWeights,
    updates: Updates,
) -> StepLosses:
    """Move the VAE, then the discriminators, as Algorithm 1 alternates them.

    As in the authors' code, every update but the discriminators' first takes a new batch: that one is given the batch
    the VAE has just been moved on. A batch is a sequence of micro-batches.
    """
    losses = StepLosses()
    batch: Sequence[Batch] = ()
    if vae:
        # Where a network has BatchNorm, its running statistics are left as they are, too.
        vae.module.train(updates.vae > 0)
    for _ in range(updates.vae if vae else 0):
        batch = next(batches)
        losses = _mean([_move_vae(vae, discriminators, part, weights) for part in batch], batch)
    if discriminators:
        for number in range(max(1, updates.discriminators)):
            if number or not batch:
                batch = next(batches)
            is_moved = updates.discriminators > 0
            moved = _mean([_move_discriminators(vae, discriminators, part, weights, is_moved) for part in batch], batch)
        losses = moved._replace(transductive=losses.transductive, adversarial=losses.adversarial)
    return losses


def _move_vae(vae: Updater | None, discriminators: Updater | None, batch: Batch, weights: LossWeights) -> StepLosses:
    assert vae is not None
    x_BCHW = torch.cat([batch.labelled.x_BCHW, batch.unlabelled.x_BCHW])
    labelled, unlabelled = slice(len(batch.labelled.x_BCHW)), slice(len(batch.labelled.x_BCHW), None)
    image, mean, logvar = (output.float() for output in vae(x_BCHW, batch.noise_BZ))
    transductive = sum(
        (
            transductive_loss(image[pool], x_BCHW[pool].float(), mean[pool], logvar[pool], weights.beta)
            for pool in (labelled, unlabelled)
        ),
        torch.zeros((), device=x_BCHW.device),
    )
    if discriminators is None or weights.adversarial == 0:
        vae.apply(batch.weight * weights.transductive * transductive)
        return StepLosses(transductive.detach())
    # The discriminators are frozen, and called as a bare module: otherwise the VAE's backward pass would fill their
    # gradients too, which ZeRO 1 and 2 add silently to the next step and ZeRO 3 refuses.
    with _frozen(discriminators.module):
        logit_BK = discriminators.module(mean).float()
        adversarial = adversarial_loss(logit_BK[labelled], logit_BK[unlabelled])
        vae.apply(batch.weight * vaal_objective(transductive, adversarial, weights))
    return StepLosses(transductive.detach(), adversarial.detach())


def _move_discriminators(
    vae: Updater | None, discriminators: Updater, batch: Batch, weights: LossWeights, is_moved: bool
) -> StepLosses:
    inputs = torch.cat([batch.labelled.x_BCHW, batch.unlabelled.x_BCHW])
    if vae is not None:
        with torch.no_grad():
            inputs, _ = vae.module.encode(inputs)
    with torch.set_grad_enabled(is_moved):
        logit_BK = (discriminators if is_moved else discriminators.module)(inputs).float()
        num_labelled = len(batch.labelled.x_BCHW)
        loss = discriminator_loss(
            logit_BK[:num_labelled], logit_BK[num_labelled:],
            batch.labelled.fold_B, batch.unlabelled.fold_B, weights.labelled_share,
        )  # fmt: skip
        if is_moved:
            discriminators.apply(batch.weight * loss.trained)
    held_out = loss.held_out if logit_BK.shape[1] > 1 else None
    return StepLosses(discriminator=loss.trained.detach(), held_out=held_out)


def _mean(parts: Sequence[StepLosses], batch: Sequence[Batch]) -> StepLosses:
    """The losses of an update from those of its micro-batches."""
    columns = zip(*parts, strict=True)
    weight = [part.weight / len(batch) for part in batch]
    return StepLosses(
        *(
            None if column[0] is None else torch.stack([w * loss for w, loss in zip(weight, column, strict=True)]).sum()
            for column in columns
        )
    )


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


class MemorisationGuard:
    """Holds the discriminators still while they do better on their training items than the held-out ones explain.

    A discriminator that knows its items by heart still tells labelled from unlabelled ones, but not by how they look:
    its logits then say nothing of other images. The items of fold k, which discriminator k never trains on, show it.
    Needs at least two folds.
    """

    def __init__(self, gap: float = 0.0, is_holding: bool = False) -> None:
        self.gap, self.is_holding = gap, is_holding

    def observe(self, trained: float, held_out: float, num_folds: int) -> None:
        """Take the discriminators' losses of the last steps, each summed over the folds."""
        if num_folds > 1:
            self.gap = _MEMORY * self.gap + (1 - _MEMORY) * (held_out - trained) / num_folds
            # Two thresholds, so that it does not flicker.
            self.is_holding = self.gap > (MEMORISATION_LIMIT / 2 if self.is_holding else MEMORISATION_LIMIT)
