"""The authors' networks: their parameters to the last one, and their arithmetic written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaal.acquisition.discriminator import labelled_logit
from vaal.assembly import Networks, Sizes, vaal_networks
from vaal.networks import Discriminators
from vaal.paper import PAPER_SHAPE, PaperVAE


@pytest.fixture(scope="module")
def vae() -> PaperVAE:
    torch.manual_seed(0)
    network = PaperVAE(32, 3)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            # As after training: statistics and scales that are no longer neutral.
            for name, tensor in norm.state_dict().items():
                if name in {"running_mean", "bias"}:
                    tensor.normal_(std=0.1)
                elif name in {"running_var", "weight"}:
                    tensor.uniform_(0.5, 1.5)
    return network.eval()


def paper_discriminators(num_folds: int) -> Discriminators:
    return Discriminators(num_folds, PAPER_SHAPE, nn.ReLU)


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_parameters_are_as_many_as_the_authors_code_has(vae: PaperVAE) -> None:
    assert count(vae.encoder) == 11_020_032
    assert count(vae.to_mean, vae.to_logvar) == 262_208
    assert count(vae.decoder) == 11_552_899
    assert count(vae) == 22_835_139
    assert vae.num_latents == 32
    assert count(paper_discriminators(1)) == 280_065
    assert count(paper_discriminators(3)) == 3 * 280_065


def norm_relu(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    mean, variance, scale, shift = (
        weights[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return F.relu((x - mean) / (variance + 1e-5).sqrt() * scale + shift)


def test_networks_equal_the_authors_layers_written_out(vae: PaperVAE) -> None:
    weights = dict(vae.state_dict())
    x, noise = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 32)
    with torch.no_grad():
        image, mean, logvar = vae(x, noise)
    h = x
    for i in (0, 3, 6, 9):
        h = F.conv2d(h, weights[f"encoder.{i}.weight"], stride=2, padding=1)
        h = norm_relu(h, weights, f"encoder.{i + 1}")
    assert h.shape == (2, 1024, 2, 2)
    for name, head in (("mean", mean), ("logvar", logvar)):
        expected = F.linear(h.flatten(1), weights[f"to_{name}.weight"], weights[f"to_{name}.bias"])
        torch.testing.assert_close(head, expected, atol=1e-4, rtol=1e-4)
    z = mean + (logvar / 2).exp() * noise
    h = F.linear(z, weights["decoder.layers.0.weight"], weights["decoder.layers.0.bias"]).view(2, 1024, 4, 4)
    for i in (2, 5, 8):
        h = F.conv_transpose2d(h, weights[f"decoder.layers.{i}.weight"], stride=2, padding=1)
        h = norm_relu(h, weights, f"decoder.layers.{i + 1}")
    expected = F.conv_transpose2d(h, weights["decoder.layers.11.weight"], weights["decoder.layers.11.bias"])
    torch.testing.assert_close(image, expected, atol=1e-4, rtol=1e-4)


def test_discriminators_equal_the_authors_before_their_sigmoid() -> None:
    discriminators = paper_discriminators(2)
    weights, mean = discriminators.state_dict(), torch.randn(4, 32)
    for k in range(2):
        h = mean
        for i in (0, 2, 4):
            h = F.linear(F.relu(h) if i else h, weights[f"folds.{k}.{i}.weight"], weights[f"folds.{k}.{i}.bias"])
        torch.testing.assert_close(discriminators(mean)[:, k], h[:, 0])


def test_a_score_in_eval_mode_does_not_depend_on_batch_mates(vae: PaperVAE) -> None:
    discriminators = paper_discriminators(2).eval()
    x, fold = torch.randn(3, 3, 32, 32), torch.tensor([1, 0, 1])
    logit, mean = labelled_logit(Networks(vae, discriminators), x, fold)
    for i in range(3):
        alone, alone_mean = labelled_logit(Networks(vae, discriminators), x[i : i + 1], fold[i : i + 1])
        torch.testing.assert_close(alone, logit[i : i + 1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone_mean, mean[i : i + 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (48, 3), (64, 4), (224, 3)])
def test_any_multiple_of_16_comes_back_in_its_own_size(size: int, channels: int) -> None:
    with torch.device("meta"):
        network = PaperVAE(size, channels)
        image, mean, _ = network(torch.zeros(2, channels, size, size), torch.zeros(2, network.num_latents))
        maps = network.encoder(torch.zeros(2, channels, size, size))
    assert image.shape == (2, channels, size, size)
    assert mean.shape == (2, network.num_latents)
    assert maps.shape == (2, 1024, size // 16, size // 16)


def test_latents_grow_with_the_image_as_in_the_paper() -> None:
    # Its appendix: CIFAR; Caltech-256 and ImageNet; Cityscapes and BDD100K.
    with torch.device("meta"):
        made = [vaal_networks(Sizes("paper", size, 3, 1)) for size in (32, 64, 256)]
    assert [networks.num_latents for networks in made] == [32, 64, 128]
    assert [networks.discriminators.folds[0][0].in_features for networks in made] == [32, 64, 128]


@pytest.mark.parametrize("size", [16, 31, 33, 40, 100])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"32 px or a larger multiple of 16, got {size}"):
        PaperVAE(size, 3)
