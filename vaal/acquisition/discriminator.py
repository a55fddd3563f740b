"""VAAL's acquisition function: how surely the discriminator takes an image for a labelled one (arXiv 1904.00370)."""

import torch
from torch import Tensor, nn

from vaal.ablations import ImageDiscriminators
from vaal.networks import Discriminators, Encoder


@torch.inference_mode()
def labelled_logit(
    vae: Encoder, discriminators: Discriminators, x_BCHW: Tensor, fold_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Labelled-logits (B,) and latent means (B, Z), float32; the lowest logits are the most valuable images.

    The decoder does not run and no noise is drawn. An item is scored by the discriminator of its own fold, the one
    that was not trained on it. `fold_B` is int64.

    Raises:
        ValueError: a network is in training mode, or a logit is not finite.
    """
    require_eval_mode(vae, discriminators)
    mean_BZ, _ = vae.encode(x_BCHW)
    return _own_fold(discriminators(mean_BZ), fold_B), mean_BZ.float()


@torch.inference_mode()
def image_logit(discriminators: ImageDiscriminators, x_BCHW: Tensor, fold_B: Tensor) -> tuple[Tensor, Tensor]:
    """`labelled_logit` of discriminators that see images: labelled-logits (B,) and features (B, Z), float32.

    Raises:
        ValueError: the discriminators are in training mode, or a logit is not finite.
    """
    require_eval_mode(discriminators)
    features_BZ = discriminators.features(x_BCHW, fold_B)
    return _own_fold(discriminators.classify(features_BZ), fold_B), features_BZ.float()


def require_eval_mode(*networks: Encoder | nn.Module) -> None:
    """Refuse to score in training mode, where a score may depend on the rest of its batch."""
    if any(network.training for network in networks):
        raise ValueError("scoring needs every network in eval mode")


def require_finite(score_B: Tensor, name: str) -> None:
    """Refuse a score that has no place in an order. `name` is what the scores are, in the plural."""
    if not torch.isfinite(score_B).all():
        raise ValueError(f"{int((~torch.isfinite(score_B)).sum())} of {len(score_B)} {name} are not finite")


def _own_fold(logit_BK: Tensor, fold_B: Tensor) -> Tensor:
    logit_B = logit_BK.gather(1, fold_B[:, None]).squeeze(1).float()
    require_finite(logit_B, "logits")
    return logit_B
