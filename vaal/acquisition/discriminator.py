"""VAAL's acquisition function: how strongly the discriminator takes an image for labelled (arXiv 1904.00370)."""

import torch
from torch import Tensor

from vaal.acquisition.view import View
from vaal.assembly import Networks


def vaal(view: View) -> Tensor:
    """The score of the training method (B,): of VAAL the labelled-logit (arXiv 1904.00370, algorithm 2)."""
    return view.method[0]


def confused(view: View) -> Tensor:
    """How far the discriminator is from undecided (B,): |logit|, 0 where it gives both pools the same probability.

    Summaries of VAAL name it as the method's rule, which it is not (experimental).
    """
    return view.method[0].abs()


@torch.no_grad()
def labelled_logit(networks: Networks, x_BCHW: Tensor, fold_B: Tensor) -> tuple[Tensor, Tensor]:
    """Labelled-logits (B,) and latents (B, Z), float32; the lowest logits are the most valuable images.

    The decoder does not run and no noise is drawn. The discriminator of an item's own fold, which was not trained on
    it, gives its score. `fold_B` is int64. Under autocast only the encoder runs in lower precision. The caller checks
    that logits are finite: a check here would make a GPU wait.

    Raises ValueError if a network is in training mode.
    """
    vae, discriminators = networks.scoring("vae", "discriminators")
    mean_BZ = vae.encode(x_BCHW)[0].float()
    with torch.autocast(x_BCHW.device.type, enabled=False):
        return _own_fold(discriminators(mean_BZ), fold_B), networks.latents(x_BCHW, mean_BZ)


@torch.no_grad()
def image_logit(networks: Networks, x_BCHW: Tensor, fold_B: Tensor) -> tuple[Tensor, Tensor]:
    """As `labelled_logit`, for discriminators on images: labelled-logits (B,) and latents (B, Z), float32.

    Raises ValueError if the discriminators are in training mode.
    """
    (discriminators,) = networks.scoring("discriminators")
    features_BZ = discriminators.features(x_BCHW, fold_B).float()
    with torch.autocast(x_BCHW.device.type, enabled=False):
        logit_B = _own_fold(discriminators.classify(features_BZ), fold_B)
    return logit_B, networks.latents(x_BCHW)


def _own_fold(logit_BK: Tensor, fold_B: Tensor) -> Tensor:
    return logit_BK.gather(1, fold_B[:, None]).squeeze(1)
