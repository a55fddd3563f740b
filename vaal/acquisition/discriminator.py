"""VAAL's acquisition function: how surely the discriminator takes an image for a labelled one (arXiv 1904.00370)."""

import torch
from torch import Tensor

from vaal.networks import VAE, Discriminators


@torch.inference_mode()
def labelled_logit(vae: VAE, discriminators: Discriminators, x_BCHW: Tensor, fold_B: Tensor) -> tuple[Tensor, Tensor]:
    """Labelled-logits (B,) and latent means (B, Z), float32; the lowest logits are the most valuable images.

    The decoder does not run and no noise is drawn. An item is scored by the discriminator of its own fold, the one
    that was not trained on it. `fold_B` is int64.

    Raises:
        ValueError: a network is in training mode, or a logit is not finite.
    """
    if vae.training or discriminators.training:
        raise ValueError("scoring needs both networks in eval mode")
    mean_BZ, _ = vae.encode(x_BCHW)
    logit_B = discriminators(mean_BZ).gather(1, fold_B[:, None]).squeeze(1).float()
    if not torch.isfinite(logit_B).all():
        raise ValueError(f"{int((~torch.isfinite(logit_B)).sum())} of {len(logit_B)} logits are not finite")
    return logit_B, mean_BZ.float()
