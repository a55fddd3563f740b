"""The distance from the labelled pool, against the general formula for Gaussians and against its definition."""

import pytest
import torch
from torch import Tensor

from vaal.ablations import Centroid
from vaal.acquisition.wasserstein import centroid_score
from vaal.assembly import Networks
from vaal.networks import VAE, NetworkShape

FOLD = torch.zeros(5, dtype=torch.int64)


def fitted(num_latents: int) -> tuple[VAE, Centroid, Tensor]:
    torch.manual_seed(0)
    shape = NetworkShape(width=8, max_width=8, num_latents=num_latents, discriminator_width=8)
    vae, centroid = VAE(8, 1, shape).eval(), Centroid(num_latents)
    with torch.no_grad():
        centroid.fit(*vae.encode(torch.randn(20, 1, 8, 8)))
    return vae, centroid, torch.randn(5, 1, 8, 8)


def square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T
    return root


def test_score_is_minus_the_distance_between_gaussians() -> None:
    vae, centroid, x = fitted(6)
    score, mean = centroid_score(Networks(vae, centroid=centroid), x, FOLD)
    expected_mean, logvar = vae.encode(x)
    torch.testing.assert_close(mean, expected_mean)
    labelled = centroid.std_Z.double().square().diag()
    for i in range(5):
        covariance = logvar[i].detach().double().exp().diag()
        root = square_root(labelled)
        spread = (covariance + labelled - 2 * square_root(root @ covariance @ root)).trace()
        distance = ((mean[i] - centroid.mean_Z).double().square().sum() + spread).sqrt()
        assert score[i].item() == pytest.approx(-distance.item(), rel=1e-5)


def test_score_is_the_distance_between_quantile_functions() -> None:
    vae, centroid, x = fitted(1)
    score, mean = centroid_score(Networks(vae, centroid=centroid), x, FOLD)
    std = (0.5 * vae.encode(x)[1].detach()).exp()
    p = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    standard = 2**0.5 * torch.erfinv(2 * p - 1)
    labelled = centroid.mean_Z + centroid.std_Z * standard
    for i in range(5):
        item = mean[i] + std[i] * standard
        # The tails that the grid cuts off hold less than 1e-4 of the integral.
        assert score[i].item() == pytest.approx(-(item - labelled).square().mean().sqrt().item(), rel=1e-4)


def test_training_mode_is_refused() -> None:
    vae, centroid, x = fitted(2)
    with pytest.raises(ValueError, match="eval mode"):
        centroid_score(Networks(vae.train(), centroid=centroid), x, FOLD)


def test_a_centroid_of_nothing_scores_nothing() -> None:
    vae, _, x = fitted(2)
    assert torch.isnan(centroid_score(Networks(vae, centroid=Centroid(2)), x, FOLD)[0]).all()
