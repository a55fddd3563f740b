"""The acquisition function of the paper's ablation without a discriminator: distance from the labelled pool."""

import torch
from torch import Tensor

from vaal.assembly import Networks


@torch.no_grad()
def centroid_score(networks: Networks, x_BCHW: Tensor, fold_B: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Scores (B,) and latent means (B, Z), float32; the lowest scores are the most valuable images.

    A score is minus the 2-Wasserstein distance of q(z|x) from the labelled pool's barycentre, in units of z: between
    diagonal Gaussians its square is |difference of means|^2 + |difference of standard deviations|^2 (Dowson and
    Landau 1982, Journal of Multivariate Analysis 12). It is NaN if the centroid was not fitted.

    Raises ValueError if the VAE is in training mode.
    """
    (vae,), centroid = networks.scoring("vae"), networks.centroid
    assert centroid is not None
    mean_BZ, logvar_BZ = vae.encode(x_BCHW)
    mean_BZ, std_BZ = mean_BZ.float(), (0.5 * logvar_BZ.float()).exp()
    difference = torch.cat([mean_BZ - centroid.mean_Z, std_BZ - centroid.std_Z], dim=1)
    return -difference.norm(dim=1), networks.latents(x_BCHW, mean_BZ)
