"""The two networks of VAAL for images of any size, 1 to 4 channels, and any width and depth.

Nothing here mixes samples: normalisation is GroupNorm, so an image's latent depends on that image alone.

Shape suffixes: B batch, C image channels, H height, W width, F features, Z latent units, K folds.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_MAP = 4
"""Pixels. The encoder halves the image until its sides are not larger than this."""


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of the networks. Channels double from `width` with each halving of the image, up to `max_width`."""

    width: int
    max_width: int
    num_latents: int
    discriminator_width: int
    blocks: int = 1
    """Convolutions at each resolution. All but the first are residual."""
    discriminator_layers: int = 3
    """Linear layers of a discriminator, its output among them."""


PRESETS: dict[str, NetworkShape] = {
    "small": NetworkShape(width=32, max_width=256, num_latents=32, discriminator_width=128),
    "base": NetworkShape(width=64, max_width=512, num_latents=64, discriminator_width=512),
    "large": NetworkShape(width=128, max_width=1024, num_latents=128, discriminator_width=512, blocks=2),
}
"""Shapes for images up to 32 px. `shape_for` gives those for any size."""


def latents_for(num_latents: int, image_size: int) -> int:
    """Units of a latent for images with a side of `image_size` pixels, where there are `num_latents` up to 32 px.

    They double above 32 px and again above 128 px, as in the paper (arXiv 1904.00370, appendix: 32 for CIFAR, 64 for
    Caltech-256 and ImageNet, 128 for BDD100K and Cityscapes).
    """
    return num_latents * (1 if image_size <= 32 else 2 if image_size <= 128 else 4)


def shape_for(preset: str, image_size: int) -> NetworkShape:
    """The shape of a preset (`small`, `base` or `large`) for images with a side of `image_size` pixels.

    Latents grow by `latents_for`. Above 64 px the first stage has half the channels: the maps nearest the image cost
    most and add least to a latent.

    Raises ValueError if there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is none of {', '.join(PRESETS)}")
    shape = PRESETS[preset]
    width = shape.width if image_size <= 64 else shape.width // 2
    return replace(shape, width=width, num_latents=latents_for(shape.num_latents, image_size))


def feature_map_sizes(image_size: int) -> list[int]:
    """Side lengths of the encoder's maps, the image first. An odd side is rounded up, so every size is valid."""
    sizes = [image_size]
    while sizes[-1] > SMALLEST_MAP or len(sizes) == 1:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def stage_widths(image_size: int, width: int, max_width: int) -> list[int]:
    """Channels of the encoder's maps, without the image: `width`, doubled with each halving, up to `max_width`."""
    return [min(width * 2**i, max_width) for i in range(len(feature_map_sizes(image_size)) - 1)]


def initialise(module: nn.Module, linear: Sequence[nn.Module] = ()) -> None:
    """Draw every weight of `module` from N(0, gain^2 / fan_in), from torch's global generator; biases 0, norms 1 and 0.

    The gain is sqrt(2) for a layer that a nonlinearity follows (He et al. 2015, arXiv 1502.01852, eq. 10), and 1 for
    the layers in `linear`, which none follows. fan_in is the number of terms in the sum of one output.

    Raises TypeError if a layer has parameters and there is no rule for it.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            gain = 1.0 if layer in linear else math.sqrt(2)
            nn.init.normal_(layer.weight, std=gain / math.sqrt(_fan_in(layer)))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.GroupNorm | nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif next(layer.parameters(recurse=False), None) is not None:
            raise TypeError(f"no rule to initialise {layer}")


def _fan_in(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    if isinstance(layer, nn.ConvTranspose2d):
        # Its weight is (in, out, kernel, kernel), and only every stride-th tap of the kernel reaches a given output.
        return layer.weight[:, 0].numel() / math.prod(layer.stride)
    return layer.weight[0].numel()


class _Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


def _convolution(in_channels: int, out_channels: int, stride: int) -> Iterator[nn.Module]:
    # Without bias: the norm would cancel it, and Adam would amplify its gradient, which is only rounding error.
    yield nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
    yield nn.GroupNorm(num_groups=math.gcd(8, out_channels), num_channels=out_channels)
    yield nn.SiLU()


def stage(in_channels: int, out_channels: int, stride: int, blocks: int) -> nn.Sequential:
    """`blocks` convolutions at one resolution: the first has the stride, the others are residual. Not initialised."""
    others = (_Residual(nn.Sequential(*_convolution(out_channels, out_channels, 1))) for _ in range(blocks - 1))
    return nn.Sequential(*_convolution(in_channels, out_channels, stride), *others)


def encoder_stages(num_channels: int, widths: list[int], blocks: int) -> nn.Sequential:
    """(B, num_channels, H, W) to (B, widths[-1], H', W'); each stage halves the sides, rounded up. Not initialised."""
    inputs = [num_channels, *widths[:-1]]
    return nn.Sequential(*(stage(i, o, stride=2, blocks=blocks) for i, o in zip(inputs, widths, strict=True)))


def perceptron(num_inputs: int, shape: NetworkShape, activation: Callable[[], nn.Module] = nn.SiLU) -> nn.Sequential:
    """The paper's discriminator: (B, num_inputs) to one labelled-logit an item, (B, 1). Initialised."""
    layers: list[nn.Module] = []
    for _ in range(shape.discriminator_layers - 1):
        layers += [nn.Linear(num_inputs, shape.discriminator_width), activation()]
        num_inputs = shape.discriminator_width
    output = nn.Linear(num_inputs, 1)
    network = nn.Sequential(*layers, output)
    initialise(network, linear=[output])
    return network


class Autoencoder(nn.Module):
    """A VAE with a diagonal Gaussian posterior. Inputs and reconstructions are images scaled to [-1, 1].

    `encoder` and `decoder` come initialised; the encoder's output, flattened, is (B, `num_features`).
    """

    def __init__(self, encoder: nn.Module, num_features: int, num_latents: int, decoder: nn.Module) -> None:
        super().__init__()
        self.num_latents = num_latents
        self.encoder = encoder
        self.to_mean = nn.Linear(num_features, num_latents)
        self.to_logvar = nn.Linear(num_features, num_latents)
        self.decoder = decoder
        for head in (self.to_mean, self.to_logvar):
            initialise(head, linear=[head])

    def encode(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each (B, Z)."""
        features = self.encoder(x_BCHW).flatten(1)
        # exp(logvar) overflows float32 above 88; a trained posterior stays far inside these bounds.
        return self.to_mean(features), self.to_logvar(features).clamp(-10.0, 10.0)

    def forward(self, x_BCHW: Tensor, noise_BZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, C, H, W) from z = mean + exp(logvar / 2) * noise, then mean and log-variance (B, Z)."""
        mean_BZ, logvar_BZ = self.encode(x_BCHW)
        z_BZ = mean_BZ + torch.exp(0.5 * logvar_BZ) * noise_BZ
        return self.decoder(z_BZ), mean_BZ, logvar_BZ


class Decoder(nn.Module):
    """Latents (B, Z) to images (B, C, H, W), unbounded; resizes to the encoder's map sizes in reverse."""

    def __init__(self, image_size: int, num_channels: int, shape: NetworkShape) -> None:
        super().__init__()
        *self.sizes, self.first_size = feature_map_sizes(image_size)
        widths = stage_widths(image_size, shape.width, shape.max_width)
        self.first_width = widths[-1]
        self.expand = nn.Linear(shape.num_latents, self.first_width * self.first_size**2)
        inputs, outputs = reversed(widths), [*reversed(widths[:-1]), widths[0]]
        self.stages = nn.ModuleList(stage(i, o, 1, shape.blocks) for i, o in zip(inputs, outputs, strict=True))
        self.to_image = nn.Conv2d(widths[0], num_channels, kernel_size=3, padding=1)
        initialise(self, linear=[self.expand, self.to_image])

    def forward(self, z_BZ: Tensor) -> Tensor:
        x = self.expand(z_BZ).view(-1, self.first_width, self.first_size, self.first_size)
        for network, size in zip(self.stages, reversed(self.sizes), strict=True):
            x = network(F.interpolate(x, size=(size, size), mode="nearest"))
        image_BCHW: Tensor = self.to_image(x)
        return image_BCHW


class VAE(Autoencoder):
    """The convolutional beta-VAE of every preset but the paper's."""

    def __init__(self, image_size: int, num_channels: int, shape: NetworkShape) -> None:
        widths = stage_widths(image_size, shape.width, shape.max_width)
        encoder = encoder_stages(num_channels, widths, shape.blocks)
        initialise(encoder)
        num_features = widths[-1] * feature_map_sizes(image_size)[-1] ** 2
        super().__init__(encoder, num_features, shape.num_latents, Decoder(image_size, num_channels, shape))


class Discriminators(nn.Module):
    """K independent discriminators in one module, so that one optimizer and one engine update them all.

    Each is the paper's multilayer perceptron on the latent mean. It returns the probability that an image is labelled
    as a logit, because a float32 probability saturates at the end that is picked.
    """

    def __init__(self, num_folds: int, shape: NetworkShape, activation: Callable[[], nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.folds = nn.ModuleList(perceptron(shape.num_latents, shape, activation) for _ in range(num_folds))

    def forward(self, mean_BZ: Tensor) -> Tensor:
        """Labelled-logits (B, K), one column a discriminator."""
        return torch.cat([fold(mean_BZ) for fold in self.folds], dim=1)
