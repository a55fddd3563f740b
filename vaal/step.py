"""One iteration of VAAL's Algorithm 1 (arXiv 1904.00370), over anything that can update a module's weights.

Distribution is outside of this module: an `Updater` may be a DeepSpeed engine, or a module and its optimizer.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vaal.losses import LossWeights, adversarial_loss, discriminator_loss, transductive_loss, vaal_objective

MEMORISATION_LIMIT = 0.3
"""Nats by which a discriminator's loss on its held-out items may exceed that on its training items. Chance is 1.386."""
_MEMORY = 0.8
"""Weight of the past in the guard's moving average."""


class Updater(Protocol):
    """A module and what updates its weights."""

    @property
    def module(self) -> Any:
        """The bare module, for forward passes without an update."""

    def __call__(self, *inputs: Tensor) -> Any:
        """A forward pass whose loss is given to `apply`."""

    def apply(self, loss: Tensor) -> None:
        """Backpropagate `loss`, and take an optimizer step after the last micro-batch of the update.

        The gradient is the mean over the micro-batches and the workers.
        """


class PoolBatch(NamedTuple):
    """Items of one pool: images (B, C, H, W) in [-1, 1] and the fold of each item (B,), int64."""

    x_BCHW: Tensor
    fold_B: Tensor


class Batch(NamedTuple):
    """A micro-batch of both pools, of equally many items each.

    `noise_BZ` is standard normal, with a row for every labelled item and then for every unlabelled one. `weight` is
    this micro-batch's number of items over the average number. With it, micro-batches and workers of unequal size add
    up to the mean over all items.
    """

    labelled: PoolBatch
    unlabelled: PoolBatch
    noise_BZ: Tensor
    weight: float = 1.0


class Updates(NamedTuple):
    """Updates of each network in an iteration. With 0 a network is only measured."""

    vae: int = 1
    discriminators: int = 1


class StepLosses(NamedTuple):
    """Detached scalars of an iteration's last updates, in nats; None where there is none.

    Eq. 1 over both pools; Eq. 2; Eq. 3 summed over the folds, on the items that train each discriminator; and Eq. 3 on
    the items held out from each, if there are several folds.
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
    """Update the VAE, then the discriminators, as Algorithm 1 alternates them.

    As in the authors' code, every update takes a new batch, except that the discriminators' first update uses the batch
    of the VAE's last one. A batch is a sequence of micro-batches.
    """
    losses = StepLosses()
    batch: Sequence[Batch] = ()
    if vae:
        # Without updates, the running statistics of BatchNorm must not change either.
        vae.module.train(updates.vae > 0)
        for _ in range(updates.vae):
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


def _move_vae(vae: Updater, discriminators: Updater | None, batch: Batch, weights: LossWeights) -> StepLosses:
    x_BCHW = torch.cat([batch.labelled.x_BCHW, batch.unlabelled.x_BCHW])
    image, mean, logvar = (output.float() for output in vae(x_BCHW, batch.noise_BZ))
    images, targets, means, logvars = (values.chunk(2) for values in (image, x_BCHW.float(), mean, logvar))
    labelled, unlabelled = map(transductive_loss, images, targets, means, logvars, (weights.beta, weights.beta))
    transductive = labelled + unlabelled
    if discriminators is None or weights.adversarial == 0:
        vae.apply(batch.weight * weights.transductive * transductive)
        return StepLosses(transductive.detach())
    # The discriminators are frozen, and called as a bare module: otherwise the VAE's backward pass would fill their
    # gradients too, which ZeRO 1 and 2 add silently to the next step and ZeRO 3 refuses.
    discriminators.module.requires_grad_(False)
    try:
        adversarial = adversarial_loss(*discriminators.module(mean).float().chunk(2))
        vae.apply(batch.weight * vaal_objective(transductive, adversarial, weights))
    finally:
        discriminators.module.requires_grad_(True)
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
        labelled_BK, unlabelled_BK = logit_BK.chunk(2)
        folds = batch.labelled.fold_B, batch.unlabelled.fold_B
        loss = discriminator_loss(labelled_BK, unlabelled_BK, *folds, weights.labelled_share)
        if is_moved:
            discriminators.apply(batch.weight * loss.trained)
    held_out = loss.held_out if logit_BK.shape[1] > 1 else None
    return StepLosses(discriminator=loss.trained.detach(), held_out=held_out)


def _mean(parts: Sequence[StepLosses], batch: Sequence[Batch]) -> StepLosses:
    """The losses of an update from those of its micro-batches."""
    weight = [part.weight / len(batch) for part in batch]
    return StepLosses(
        *(
            None if column[0] is None else torch.stack([w * loss for w, loss in zip(weight, column, strict=True)]).sum()
            for column in zip(*parts, strict=True)
        )
    )


class MemorisationGuard:
    """Stops the updates of discriminators that memorise: whose training loss is too far below their held-out loss.

    A discriminator that has memorised its items separates them by identity, not by appearance, and its logits of other
    images mean nothing. The items of fold k, which discriminator k never trains on, show it. Needs two folds or more.
    """

    def __init__(self, gap: float = 0.0, is_holding: bool = False) -> None:
        self.gap, self.is_holding = gap, is_holding

    def observe(self, trained: float, held_out: float, num_folds: int) -> None:
        """Add the discriminators' mean losses of the last steps, each summed over the folds."""
        if num_folds > 1:
            self.gap = _MEMORY * self.gap + (1 - _MEMORY) * (held_out - trained) / num_folds
            # Two thresholds, so that it does not toggle.
            self.is_holding = self.gap > (MEMORISATION_LIMIT / 2 if self.is_holding else MEMORISATION_LIMIT)
