"""The scales of a pool's embeddings: for the networks each dimension alone, for distances all of them together.

Shape suffixes: N items, D dimensions of an embedding, Z of a latent.
"""

import torch
from torch import Tensor, nn

MOST_LATENTS = 128
"""Dimensions of the latents by which items are compared. Longer embeddings are projected on as many directions."""
LEAST_STD = 0.01
"""Of the root mean square of all dimensions' standard deviations. A dimension that hardly varies is no reason to see an
item as far away."""


class Standardiser(nn.Module):
    """Constants of a sample of embeddings. Frozen: buffers, in float32.

    `forward` gives every dimension mean 0 and variance 1, which suits a network. `latents` keeps the embedding's own
    distances, on which its encoder was trained: one scale for all dimensions, and of embeddings longer than
    MOST_LATENTS the principal components (Pearson 1901) with the largest variances.
    """

    mean_D: Tensor
    std_D: Tensor
    to_latents_DZ: Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("mean_D", torch.zeros(length))
        self.register_buffer("std_D", torch.ones(length))
        self.register_buffer("to_latents_DZ", torch.zeros(length, min(length, MOST_LATENTS)))

    @classmethod
    def fit(cls, vector_ND: Tensor) -> "Standardiser":
        """The constants of these embeddings (N, D), N >= 1. The same for the same embeddings: float64 inside."""
        made, x_ND = cls(vector_ND.shape[1]), vector_ND.double().cpu()
        mean_D, variance_D = x_ND.mean(dim=0), x_ND.var(dim=0, correction=0)
        scale = variance_D.mean().sqrt()
        scale = scale if scale > 0 else torch.ones_like(scale)
        std_D = variance_D.sqrt().clamp_min(LEAST_STD * scale)
        directions_DZ = torch.eye(made.length, dtype=torch.float64)
        if made.length > MOST_LATENTS:
            directions_DZ = _principal_directions(x_ND - mean_D, MOST_LATENTS)
        made.load_state_dict(
            {"mean_D": mean_D, "std_D": std_D, "to_latents_DZ": std_D[:, None] * directions_DZ / scale}
        )
        return made

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "Standardiser":
        """From the tensors of `state_dict`."""
        made = cls(len(state["mean_D"]))
        made.load_state_dict(state)
        return made

    def forward(self, vector_ND: Tensor) -> Tensor:
        """Embeddings (N, D) as they are to inputs of the networks (N, D)."""
        return (vector_ND - self.mean_D) / self.std_D

    def latents(self, x_ND: Tensor) -> Tensor:
        """Inputs of the networks, as `forward` makes them, to latents (N, Z); float32 also under autocast."""
        with torch.autocast(x_ND.device.type, enabled=False):
            return x_ND.float() @ self.to_latents_DZ


def _principal_directions(centred_ND: Tensor, count: int) -> Tensor:
    """The directions (D, count) of largest variance, the largest first; of each, the largest coordinate is positive."""
    _, vectors_DD = torch.linalg.eigh(centred_ND.T @ centred_ND)
    directions_DZ = vectors_DD.flip(1)[:, :count]
    largest_Z = directions_DZ.abs().argmax(dim=0)
    signed_DZ: Tensor = directions_DZ * directions_DZ.gather(0, largest_Z[None]).sign()
    return signed_DZ
