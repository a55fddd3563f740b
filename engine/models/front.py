"""From what was read of items to the networks' input: pixels to [-1, 1]; embeddings, read or computed, standardised."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config.options import CampaignConfig
from engine.models.encoders import LoadedEncoder, load_encoder
from engine.models.weights import to_input
from vaal.standardise import Standardiser

MOST_MEASURED = 5000
"""Unlabelled items whose embeddings give the constants of a standardiser."""
ENCODED_AT_ONCE = 64
"""Images in a forward pass of an encoder on a CPU."""


class Front(NamedTuple):
    """`encoder` makes embeddings of pixels; `standardiser` gives these one scale. Each is None where it
    does not apply; both are frozen, and on the device."""

    device: torch.device
    standardiser: Standardiser | None = None
    encoder: LoadedEncoder | None = None

    @property
    def length(self) -> int:
        """Of an embedding; 0 where the networks see pixels."""
        return self.standardiser.length if self.standardiser is not None else 0

    @property
    def num_inputs(self) -> int:
        """Of what the networks see of an embedding; 0 where they see pixels."""
        return self.standardiser.num_latents if self.standardiser is not None else 0

    def __call__(self, seen_N: NDArray[Any]) -> Tensor:
        """The input of the networks: (N, C, H, W), or (N, Z) latents of embeddings; float32, on the device."""
        if self.standardiser is None:
            return to_input(seen_N, self.device)
        x_NZ: Tensor = self.standardiser(self.vectors(seen_N))
        return x_NZ

    @torch.no_grad()
    def vectors(self, seen_N: NDArray[Any]) -> Tensor:
        """The embeddings (N, D) as they are, float32."""
        seen = torch.from_numpy(np.ascontiguousarray(seen_N))
        if self.encoder is None:
            return seen.to(self.device)
        size = ENCODED_AT_ONCE if self.device.type == "cpu" else max(1, len(seen))
        return torch.cat([self.encoder.encoder(part.to(self.device)) for part in torch.split(seen, size)])


def front_of(
    config: CampaignConfig, device: torch.device, standardiser: Standardiser | None = None, sha256: str = ""
) -> Front:
    """The front of a configuration. `sha256` is that of the encoder's weights, if it is known.

    Raises ConfigError or InputError if the encoder cannot be used.
    """
    is_encoded = config.sees_embeddings and config.encoder.model
    return Front(device, standardiser, load_encoder(config.encoder, device, sha256) if is_encoded else None)
