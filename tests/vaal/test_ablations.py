"""The ablations' networks: what each sees, that folds share nothing, and that the centroid is the barycentre."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from vaal.ablations import Centroid, FeatureDiscriminators, ImageDiscriminators, PixelDiscriminators
from vaal.networks import VAE, NetworkShape

SHAPE = NetworkShape(width=8, max_width=16, num_latents=6, discriminator_width=8)
Kind = Callable[[int, int, int, NetworkShape], ImageDiscriminators]
KINDS: list[Kind] = [PixelDiscriminators, FeatureDiscriminators]


def images(number: int, channels: int, size: int) -> torch.Tensor:
    return torch.randn(number, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_pixels_are_averaged_by_area_to_16_px() -> None:
    x = images(3, 2, 48)
    discriminators = PixelDiscriminators(2, 48, 2, SHAPE)
    pooled = x.view(3, 2, 16, 3, 16, 3).mean(dim=(3, 5)).flatten(1)
    assert discriminators.num_latents == 2 * 16 * 16
    torch.testing.assert_close(discriminators.features(x, torch.tensor([0, 1, 0])), pooled)


def test_small_images_are_seen_as_they_are() -> None:
    x = images(2, 3, 9)
    discriminators = PixelDiscriminators(1, 9, 3, SHAPE)
    assert discriminators.num_latents == 3 * 9 * 9
    torch.testing.assert_close(discriminators.features(x, torch.zeros(2, dtype=torch.int64)), x.flatten(1))


def test_a_feature_encoder_has_the_stages_of_the_vaes() -> None:
    encoder = FeatureDiscriminators(1, 32, 3, SHAPE).folds[0].get_submodule("encoder")
    shapes = [tuple(p.shape) for p in encoder.parameters()]
    vae = VAE(32, 3, SHAPE)
    assert shapes == [tuple(p.shape) for p in (*vae.encoder.parameters(), *vae.to_mean.parameters())]


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_the_items_own_fold_and_explain_its_logit(kind: Kind) -> None:
    torch.manual_seed(0)
    discriminators = kind(3, 17, 2, SHAPE)
    x, fold = images(6, 2, 17), torch.tensor([2, 0, 2, 1, 0, 2])
    logits, features = discriminators(x), discriminators.features(x, fold)
    assert logits.shape == (6, 3)
    assert features.shape == (6, discriminators.num_latents)
    for i, k in enumerate(fold.tolist()):
        own = discriminators.folds[k]
        torch.testing.assert_close(features[i], own.get_submodule("encoder")(x[i : i + 1])[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(discriminators.classify(features)[i, k], logits[i, k], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(own(x)[i, 0], logits[i, k])


def test_an_item_of_no_fold_has_no_features() -> None:
    features = FeatureDiscriminators(2, 8, 1, SHAPE).features(images(2, 1, 8), torch.tensor([1, 2]))
    assert features[0].isfinite().all()
    assert features[1].isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_folds_share_no_weights_and_hold_them_all(kind: Kind) -> None:
    torch.manual_seed(0)
    discriminators = kind(2, 16, 1, SHAPE)
    assert isinstance(discriminators.folds, nn.ModuleList)
    names = {f"folds.{k}.{name}" for k, fold in enumerate(discriminators.folds) for name in fold.state_dict()}
    assert set(discriminators.state_dict()) == names
    discriminators(images(4, 1, 16))[:, 0].sum().backward()
    for name, parameter in discriminators.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()) == name.startswith("folds.0."), name


def test_centroid_is_the_barycentre_of_the_posteriors() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(50, 4, generator=generator), torch.randn(50, 4, generator=generator)
    centroid = Centroid(4)
    assert set(centroid.state_dict()) == {"mean_Z", "std_Z"}
    assert all(buffer.isnan().all() for buffer in centroid.buffers())
    centroid.fit(mean, logvar)
    # In one dimension the barycentre is the distribution whose quantile function is the mean of the quantile functions.
    for p in (0.01, 0.3, 0.5, 0.9):
        standard = math.sqrt(2) * torch.erfinv(torch.tensor(2 * p - 1))
        quantiles = mean + logvar.exp().sqrt() * standard
        torch.testing.assert_close(centroid.mean_Z + centroid.std_Z * standard, quantiles.mean(dim=0))
