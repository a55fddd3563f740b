"""From what was read of items to the networks' input: pixels to [-1, 1]; embeddings, read or computed, standardised."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.models.weights import to_input
from vaal.standardise import Standardiser

ENCODED_AT_ONCE = 64
"""Images in a forward pass of an encoder on a CPU."""


class Front(NamedTuple):
    """`encoder` makes pixels embeddings; `standardiser` gives these mean 0 and variance 1. Each is None where it does
    not apply; both are frozen, and on the device."""

    device: torch.device
    standardiser: Standardiser | None = None
    encoder: nn.Module | None = None

    @property
    def length(self) -> int:
        """Of an embedding; 0 where the networks see pixels."""
        return self.standardiser.length if self.standardiser is not None else 0

    def __call__(self, seen_N: NDArray[Any]) -> Tensor:
        """The input of the networks: (N, C, H, W), or (N, D) embeddings; float32, on the device."""
        if self.standardiser is None:
            return to_input(seen_N, self.device)
        x_ND: Tensor = self.standardiser(self.vectors(seen_N))
        return x_ND

    @torch.inference_mode()
    def vectors(self, seen_N: NDArray[Any]) -> Tensor:
        """The embeddings (N, D) as they are, float32."""
        seen = torch.from_numpy(np.ascontiguousarray(seen_N))
        if self.encoder is None:
            return seen.to(self.device)
        size = ENCODED_AT_ONCE if self.device.type == "cpu" else max(1, len(seen))
        return torch.cat([self.encoder(part.to(self.device)).float() for part in torch.split(seen, size)])
