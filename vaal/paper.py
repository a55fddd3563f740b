"""The authors' own networks, layer by layer (arXiv 1904.00370; their code at sinhasam/vaal, commit 67263f3).

They differ from the code in four ways. Every layer is initialised; the code skips the heads of the encoder and the
transposed convolutions. The discriminator, `Discriminators` with PAPER_SHAPE and ReLU, returns logits instead of
probabilities. The log-variance is bounded as in every VAE here, because exp of an unbounded one can overflow. The image
may be any multiple of 16 px from 32 px on.

BatchNorm mixes the samples of a batch in training mode: scores need eval mode, and several workers train differently
from one.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from vaal.networks import Autoencoder, NetworkShape, initialise, latents_for

WIDTHS = (128, 256, 512, 1024)
"""Channels of the encoder's maps; the decoder's in reverse. Narrower ones are for CPUs."""
PAPER_SHAPE = NetworkShape(width=WIDTHS[0], max_width=WIDTHS[-1], num_latents=32, discriminator_width=512)
"""The shape for images up to 32 px. `paper_shape` gives that for any size."""


def paper_shape(image_size: int) -> NetworkShape:
    """The shape for images with a side of `image_size` pixels: latents grow by `latents_for`."""
    return replace(PAPER_SHAPE, num_latents=latents_for(PAPER_SHAPE.num_latents, image_size))


def _layers(kind: type[nn.Conv2d | nn.ConvTranspose2d], width: int, widths: Sequence[int]) -> list[nn.Module]:
    """For each of `widths` a convolution that halves or doubles the sides, BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for num_outputs in widths:
        convolution = kind(width, num_outputs, kernel_size=4, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(num_outputs), nn.ReLU()]
        width = num_outputs
    return layers


class PaperDecoder(nn.Module):
    """Latents (B, Z) to images (B, C, H, W), unbounded. Its first map has an eighth of the image's side."""

    def __init__(self, image_size: int, num_channels: int, num_latents: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        side = image_size // 8
        expand = nn.Linear(num_latents, widths[-1] * side**2)
        to_image = nn.ConvTranspose2d(widths[0], num_channels, kernel_size=1)
        layers = _layers(nn.ConvTranspose2d, widths[-1], widths[-2::-1])
        self.layers = nn.Sequential(expand, nn.Unflatten(1, (widths[-1], side, side)), *layers, to_image)
        initialise(self, linear=[expand, to_image])

    def forward(self, z_BZ: Tensor) -> Tensor:
        image_BCHW: Tensor = self.layers(z_BZ)
        return image_BCHW


class PaperVAE(Autoencoder):
    """The authors' VAE: 22,835,139 parameters at 32 px, RGB and the authors' `widths`; latents as of `paper_shape`.

    Raises ValueError if `image_size` is not a multiple of 16, or is below 32 with the authors' widths.
    """

    def __init__(
        self,
        image_size: int,
        num_channels: int,
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        if image_size % 16 or image_size < (32 if widths == WIDTHS else 16):
            raise ValueError(f"the paper's VAE needs images of 32 px or a larger multiple of 16, got {image_size}")
        encoder = nn.Sequential(*_layers(nn.Conv2d, num_channels, widths))
        initialise(encoder)
        num_latents = paper_shape(image_size).num_latents
        num_features = widths[-1] * (image_size // 16) ** 2
        decoder = PaperDecoder(image_size, num_channels, num_latents, widths)
        super().__init__(encoder, num_features, num_latents, decoder)
