"""VAAL's score: eval mode only, an item by its own fold's discriminator, no noise and no decoder."""

from collections.abc import Callable

import pytest
import torch

from vaal.ablations import Centroid, FeatureDiscriminators, ImageDiscriminators, PixelDiscriminators
from vaal.acquisition.discriminator import image_logit, labelled_logit
from vaal.acquisition.wasserstein import centroid_score
from vaal.assembly import Networks
from vaal.networks import VAE, Discriminators, NetworkShape
from vaal.standardise import Standardiser
from vaal.vector_networks import VectorVAE

Score = Callable[[Networks, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

SHAPE = NetworkShape(width=8, max_width=8, num_latents=4, discriminator_width=8)


def networks() -> tuple[VAE, Discriminators]:
    torch.manual_seed(0)
    return VAE(8, 1, SHAPE).eval(), Discriminators(3, SHAPE).eval()


def test_score_is_the_own_folds_logit_of_the_latent_mean() -> None:
    vae, discriminators = networks()
    x, fold = torch.randn(6, 1, 8, 8), torch.tensor([2, 0, 1, 1, 0, 2])
    logit, mean = labelled_logit(Networks(vae, discriminators), x, fold)
    expected_mean, _ = vae.encode(x)
    torch.testing.assert_close(mean, expected_mean)
    for i in range(6):
        torch.testing.assert_close(logit[i], discriminators.folds[int(fold[i])](expected_mean)[i, 0])


@pytest.mark.parametrize("score", [labelled_logit, centroid_score])
@pytest.mark.parametrize("of_embeddings", [False, True])
def test_latents_are_the_embeddings_or_the_means_of_one_pass(
    score: Score, of_embeddings: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x, encoder, passes = torch.randn(6, 5), VectorVAE(5, SHAPE).eval(), list[int]()
    expected, encode = encoder.encode(x)[0], encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda x_BD: passes.append(len(x_BD)) or encode(x_BD))
    scale = Standardiser.fit(x) if of_embeddings else None
    made = Networks(encoder, Discriminators(3, SHAPE).eval(), Centroid(4), embedding=scale)
    latents = score(made, x, torch.zeros(6, dtype=torch.int64))[1]
    assert torch.equal(latents, x if of_embeddings else expected)
    assert passes == [6]


def test_training_mode_is_refused() -> None:
    vae, discriminators = networks()
    fold = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="eval mode"):
        labelled_logit(Networks(vae.train(), discriminators), torch.zeros(1, 1, 8, 8), fold)


def test_an_image_that_is_not_finite_spoils_its_own_score_alone() -> None:
    vae, discriminators = networks()
    x = torch.zeros(2, 1, 8, 8)
    x[1] = float("nan")
    logit, mean = labelled_logit(Networks(vae, discriminators), x, torch.zeros(2, dtype=torch.int64))
    assert torch.isfinite(logit).tolist() == [True, False]
    assert torch.isfinite(mean).all(dim=1).tolist() == [True, False]


def test_under_autocast_the_encoder_alone_loses_precision() -> None:
    vae, discriminators = networks()
    x, fold = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(64, dtype=torch.int64)
    exact, _ = labelled_logit(Networks(vae, discriminators), x, fold)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logit, mean = labelled_logit(Networks(vae, discriminators), x, fold)
    assert logit.dtype == mean.dtype == torch.float32
    assert not torch.equal(logit, exact)
    torch.testing.assert_close(logit, discriminators(mean.clone())[:, 0].detach())
    # A logit in bf16 would have 8 bits, and items would tie.
    assert not torch.equal(logit, logit.bfloat16().float())


@pytest.mark.parametrize("kind", [PixelDiscriminators, FeatureDiscriminators])
def test_score_without_a_vae_is_the_own_folds_logit_of_the_image(
    kind: Callable[[int, int, int, NetworkShape], ImageDiscriminators],
) -> None:
    torch.manual_seed(0)
    discriminators = kind(3, 8, 1, SHAPE).eval()
    x, fold = torch.randn(6, 1, 8, 8), torch.tensor([2, 0, 1, 1, 0, 2])
    logit, latents = image_logit(Networks(None, discriminators), x, fold)
    # One space for all items: that of the first discriminator.
    torch.testing.assert_close(latents, discriminators.features(x, torch.zeros_like(fold)))
    torch.testing.assert_close(logit, discriminators(x)[torch.arange(6), fold])


def test_training_mode_is_refused_without_a_vae() -> None:
    discriminators = PixelDiscriminators(1, 8, 1, SHAPE)
    with pytest.raises(ValueError, match="eval mode"):
        image_logit(Networks(None, discriminators), torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64))
