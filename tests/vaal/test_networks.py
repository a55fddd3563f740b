"""The networks take any image, do not mix samples, and start from weights that are drawn as intended, all of them."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vaal.ablations import FeatureDiscriminators, PixelDiscriminators
from vaal.networks import PRESETS, VAE, Discriminators, NetworkShape, feature_map_sizes, initialise, shape_for, stage
from vaal.paper import PAPER_SHAPE, PaperVAE
from vaal.task.classifier import Classifier

TINY = NetworkShape(width=8, max_width=16, num_latents=5, discriminator_width=8)
MIDDLE = NetworkShape(width=16, max_width=32, num_latents=32, discriminator_width=256, blocks=2)
HEADS = {"to_mean", "to_logvar"}


@pytest.mark.parametrize("size", [4, 5, 8, 17, 32, 50, 64, 224])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_image_comes_back_in_its_own_size(size: int, channels: int) -> None:
    vae = VAE(size, channels, TINY)
    image, mean, logvar = vae(torch.zeros(2, channels, size, size), torch.zeros(2, 5))
    assert image.shape == (2, channels, size, size)
    assert mean.shape == logvar.shape == (2, vae.num_latents) == (2, 5)


@pytest.mark.parametrize(("width", "max_width"), [(1, 3), (7, 7), (12, 20)])
def test_any_width_will_do(width: int, max_width: int) -> None:
    vae = VAE(17, 3, NetworkShape(width, max_width, num_latents=5, discriminator_width=8, blocks=3))
    image, _, _ = vae(torch.zeros(1, 3, 17, 17), torch.zeros(1, 5))
    assert image.shape == (1, 3, 17, 17)
    assert max(m.out_channels for m in vae.modules() if isinstance(m, nn.Conv2d)) == max_width


def test_map_sizes_halve_and_round_up() -> None:
    assert feature_map_sizes(32) == [32, 16, 8, 4]
    assert feature_map_sizes(50) == [50, 25, 13, 7, 4]
    assert feature_map_sizes(4) == [4, 2]


@pytest.mark.parametrize(
    ("preset", "size", "channels"),
    [
        *(("small", size, channels) for size in (16, 17, 32, 100) for channels in (1, 4)),
        *(("small", size, 1) for size in (64, 128, 224, 256)),
        ("base", 32, 3),
        ("base", 100, 3),
        ("large", 32, 3),
    ],
)
def test_every_weight_learns_from_an_image(preset: str, size: int, channels: int) -> None:
    torch.manual_seed(0)
    shape = shape_for(preset, size)
    vae = VAE(size, channels, shape)
    x, noise = torch.rand(1, channels, size, size) * 2 - 1, torch.randn(1, shape.num_latents)
    image, mean, logvar = vae(x, noise)
    assert image.shape == x.shape
    ((image - x).square().sum() + mean.square().sum() + logvar.exp().sum() - logvar.sum()).backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


COUNTS = {
    "small": {32: (394_691, 20_865), 64: (1_577_219, 24_961), 128: (1_578_691, 24_961), 224: (3_545_923, 33_153)},
    "base": {32: (1_569_667, 296_449), 64: (6_294_019, 329_217), 128: (6_301_571, 329_217), 224: (14_168_195, 394_753)},
    "large": {
        32: (10_244_611, 329_217), 64: (40_930_051, 394_753), 128: (40_926_851, 394_753), 224: (91_267_203, 525_825),
    },
}  # fmt: skip
LATENTS = {"small": (32, 64, 64, 128), "base": (64, 128, 128, 256), "large": (128, 256, 256, 512)}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_the_presets(preset: str) -> None:
    shapes = {size: shape_for(preset, size) for size in COUNTS[preset]}
    with torch.device("meta"):
        counts = {size: (count(VAE(size, 3, s)), count(Discriminators(1, s))) for size, s in shapes.items()}
    assert counts == COUNTS[preset]
    assert tuple(shape.num_latents for shape in shapes.values()) == LATENTS[preset]
    assert shapes[32] == PRESETS[preset]


@pytest.mark.parametrize("preset", PRESETS)
def test_work_grows_slower_than_the_image(preset: str) -> None:
    def operations(size: int) -> int:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            shape = shape_for(preset, size)
            VAE(size, 3, shape)(torch.zeros(1, 3, size, size), torch.zeros(1, shape.num_latents))
        total: int = counter.get_total_flops()
        return total

    # 224 px has 49 times the pixels of 32 px.
    assert operations(224) < 21 * operations(32)


def test_a_preset_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="preset 'huge' is none of small, base, large"):
        shape_for("huge", 32)


def test_further_convolutions_of_a_stage_are_added_to_the_first() -> None:
    torch.manual_seed(0)
    network = stage(3, 8, stride=2, blocks=3)
    x = torch.randn(2, 3, 9, 9)
    first = network[:3](x)
    assert len(network) == 5
    assert network(x).shape == first.shape == (2, 8, 5, 5)
    assert not torch.allclose(network(x), first)
    with torch.no_grad():
        for norm in network[3:].modules():
            if isinstance(norm, nn.GroupNorm):
                norm.weight.zero_()
    torch.testing.assert_close(network(x), first)


def test_shape_says_how_many_layers_a_discriminator_has() -> None:
    for layers in (1, 3, 5):
        shape = NetworkShape(width=8, max_width=8, num_latents=4, discriminator_width=6, discriminator_layers=layers)
        linear = [m for m in Discriminators(1, shape).modules() if isinstance(m, nn.Linear)]
        sizes = [4, *[6] * (layers - 1), 1]
        assert [(m.in_features, m.out_features) for m in linear] == list(pairwise(sizes))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "vae": (lambda: VAE(16, 3, MIDDLE), HEADS | {"decoder.expand", "decoder.to_image"}),
    "discriminators": (lambda: Discriminators(2, MIDDLE), {"folds.0.4", "folds.1.4"}),
    "paper": (lambda: PaperVAE(32, 3), HEADS | {"decoder.layers.0", "decoder.layers.11"}),
    "paper_discriminators": (lambda: Discriminators(2, PAPER_SHAPE, nn.ReLU), {"folds.0.4", "folds.1.4"}),
    "pixels": (lambda: PixelDiscriminators(2, 16, 3, MIDDLE), {f"folds.{k}.classifier.4" for k in range(2)}),
    "features": (
        lambda: FeatureDiscriminators(2, 16, 3, MIDDLE),
        {f"folds.{k}.{name}" for k in range(2) for name in ("encoder.2", "classifier.4")},
    ),
    "classifier": (lambda: Classifier(16, 3, 10, width=16), {"head"}),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_weight_is_drawn_as_intended(kind: str) -> None:
    torch.manual_seed(0)
    make, linear = NETWORKS[kind]
    network = make()
    assert linear <= {name for name, _ in network.named_modules()}
    for name, parameter in network.named_parameters():
        layer_name, _, role = name.rpartition(".")
        layer = network.get_submodule(layer_name)
        if role == "bias" or isinstance(layer, nn.GroupNorm | nn.BatchNorm2d):
            assert (parameter == (role == "weight")).all(), name
            continue
        expected = (1 if layer_name in linear else math.sqrt(2)) / math.sqrt(fan_in(layer))
        # Five standard errors of a mean, and of a standard deviation.
        assert abs(parameter.mean().item()) < 5 * expected / math.sqrt(parameter.numel()), name
        assert abs(parameter.std().item() / expected - 1) < 5 / math.sqrt(2 * parameter.numel()), name


def fan_in(layer: nn.Module) -> float:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    taps = math.prod(layer.kernel_size)
    return layer.in_channels * (taps / math.prod(layer.stride) if isinstance(layer, nn.ConvTranspose2d) else taps)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(256, 256),
        nn.Conv2d(64, 64, kernel_size=3),
        nn.Conv2d(64, 64, kernel_size=4, stride=2),
        nn.ConvTranspose2d(64, 64, kernel_size=4, stride=2),
        nn.ConvTranspose2d(64, 64, kernel_size=1),
    ],
    ids=str,
)
def test_a_signal_keeps_its_strength_from_layer_to_layer(layer: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 256) if isinstance(layer, nn.Linear) else torch.randn(4, 64, 24, 24)
    for linear, follow in (([], torch.relu), ([layer], torch.nn.Identity())):
        initialise(layer, linear)
        y: Tensor = follow(layer(x))
        inner = y if y.dim() == 2 else y[:, :, 3:-3, 3:-3]
        assert inner.square().mean().item() == pytest.approx(1, rel=0.1)


def test_a_layer_without_a_rule_is_refused() -> None:
    with pytest.raises(TypeError, match="no rule to initialise PReLU"):
        initialise(nn.Sequential(nn.Linear(2, 2), nn.PReLU()))


@pytest.mark.parametrize("preset", PRESETS)
def test_an_image_has_the_same_latent_whatever_its_batch_mates(preset: str) -> None:
    torch.manual_seed(0)
    vae = VAE(16, 3, shape_for(preset, 16)).train()
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


def test_the_variance_of_a_latent_is_bounded() -> None:
    vae = VAE(8, 1, TINY)
    for bias, bound in ((1e3, 10.0), (-1e3, -10.0)):
        nn.init.constant_(vae.to_logvar.bias, bias)
        _, logvar = vae.encode(torch.zeros(1, 1, 8, 8))
        assert (logvar == bound).all()


def test_folds_are_independent_networks() -> None:
    torch.manual_seed(0)
    discriminators = Discriminators(3, TINY)
    z = torch.randn(4, 5)
    logits = discriminators(z)
    assert logits.shape == (4, 3)
    for fold, network in enumerate(discriminators.folds):
        torch.testing.assert_close(logits[:, fold], network(z).squeeze(1))
    assert not torch.equal(logits[:, 0], logits[:, 1])
