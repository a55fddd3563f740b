"""A frozen encoder: a network that others trained, from an image's pixels to its embedding.

Shape suffixes: B batch, H height, W width, C image channels, D components of an embedding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaal.network_trial import device_of, exact, fault_of, noise_pixels


class EncoderError(ValueError):
    """A network that is no encoder. The text is one line."""


class Preprocessing(NamedTuple):
    """What the encoder was trained with: mean and standard deviation of each channel, of pixels from 0 to 1, in the
    order of the network's input; `is_bgr` if that is blue, green, red."""

    mean_C: Sequence[float]
    std_C: Sequence[float]
    is_bgr: bool = False

    def __call__(self, pixels_BHWC: Tensor) -> Tensor:
        """The network's input (B, C, H, W) float32, of pixels uint8 whose order is red, green, blue."""
        mean_C, std_C = (torch.tensor(values, device=pixels_BHWC.device) for values in (self.mean_C, self.std_C))
        if self.is_bgr:
            pixels_BHWC = pixels_BHWC.flip(-1)
        return ((pixels_BHWC.float() / 255 - mean_C) / std_C).permute(0, 3, 1, 2).contiguous()


class Encoder(nn.Module):
    """A network with its preprocessing, in eval mode, whose weights are not trained."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.preprocessing = preprocessing

    def train(self, mode: bool = True) -> "Encoder":
        """Stays in eval mode: in training mode a network may mix the images of a batch."""
        return super().train(False) if mode else super().train(mode)

    @torch.no_grad()
    def forward(self, pixels_BHWC: Tensor) -> Tensor:
        """Embeddings (B, D) float32 of pixels (B, H, W, C) uint8.

        Raises EncoderError if the network returns anything else than (B, D) floats. Values may be not finite.
        """
        # The method of the contract; networks of libraries have parts of that name, which are no embeddings.
        method = getattr(self.network, "features", None)
        embed = self.network if method is None or isinstance(method, nn.Module) else method
        found = embed(self.preprocessing(pixels_BHWC))
        if not isinstance(found, Tensor):
            raise EncoderError(f"returns {type(found).__name__}, not one tensor (batch, components)")
        if found.ndim != 2 or len(found) != len(pixels_BHWC) or not found.is_floating_point():
            kind = f"{tuple(found.shape)} of {str(found.dtype).removeprefix('torch.')}"
            raise EncoderError(f"returns {kind} for {len(pixels_BHWC)} images, not (batch, components) of floats")
        return found.float()


def check_encoder(encoder: Encoder, size: int) -> int:
    """The number D of components, found with seven images of noise of `size` pixels on the encoder's device.

    Raises EncoderError if the network fails on them, returns no (B, D), or something not finite or the same for all
    images, or if an image's embedding depends on the others in its batch, or on chance.
    """
    pixels = noise_pixels(size, len(encoder.preprocessing.mean_C)).to(device_of(encoder))
    with exact(pixels.device):
        together_BD = _run(encoder, pixels)
        alone_BD = torch.cat([_run(encoder, pixels[n : n + 1]) for n in range(len(pixels))])
    if fault := fault_of(together_BD, alone_BD, "components", "embedding"):
        raise EncoderError(fault)
    return together_BD.shape[1]


def _run(encoder: Encoder, pixels_BHWC: Tensor) -> Tensor:
    try:
        found: Tensor = encoder(pixels_BHWC)
    except (EncoderError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        # The network is the user's, and may raise anything.
        shape = tuple(pixels_BHWC.permute(0, 3, 1, 2).shape)
        raise EncoderError(f"fails on images {shape}: {' '.join(str(error).split())}") from error
    return found
