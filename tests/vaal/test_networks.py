"""The networks take any image, do not mix samples, and start from weights that are theirs."""

import pytest
import torch

from vaal.networks import PRESETS, VAE, Discriminators, NetworkShape, feature_map_sizes

TINY = NetworkShape(width=8, max_width=16, num_latents=5, discriminator_width=8)


@pytest.mark.parametrize("size", [4, 5, 8, 17, 32, 50, 64, 224])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_image_comes_back_in_its_own_size(size: int, channels: int) -> None:
    vae = VAE(size, channels, TINY)
    image, mean, logvar = vae(torch.zeros(2, channels, size, size), torch.zeros(2, 5))
    assert image.shape == (2, channels, size, size)
    assert mean.shape == logvar.shape == (2, 5)


def test_map_sizes_halve_and_round_up() -> None:
    assert feature_map_sizes(32) == [32, 16, 8, 4]
    assert feature_map_sizes(50) == [50, 25, 13, 7, 4]
    assert feature_map_sizes(4) == [4, 2]


@pytest.mark.parametrize("preset", PRESETS)
def test_an_image_has_the_same_latent_whatever_its_batch_mates(preset: str) -> None:
    torch.manual_seed(0)
    vae = VAE(16, 3, PRESETS[preset]).train()
    x = torch.randn(4, 3, 16, 16)
    alone, _ = vae.encode(x[:1])
    together, _ = vae.encode(x)
    torch.testing.assert_close(alone, together[:1], atol=1e-5, rtol=1e-5)


def test_noise_scales_with_the_standard_deviation() -> None:
    torch.manual_seed(0)
    vae = VAE(8, 1, TINY).eval()
    x, noise = torch.randn(3, 1, 8, 8), torch.randn(3, 5)
    image, mean, logvar = vae(x, noise)
    torch.testing.assert_close(image, vae.decoder(mean + logvar.exp().sqrt() * noise))


def test_folds_are_independent_networks() -> None:
    torch.manual_seed(0)
    discriminators = Discriminators(3, TINY)
    z = torch.randn(4, 5)
    logits = discriminators(z)
    assert logits.shape == (4, 3)
    for fold, network in enumerate(discriminators.folds):
        torch.testing.assert_close(logits[:, fold], network(z).squeeze(1))
    assert not torch.equal(logits[:, 0], logits[:, 1])
