"""The scale of a pool's embeddings: one for all components, so that their own distances stay.

Shape suffixes: N items, D components of an embedding, Z of a latent.
"""

import math

import torch
from torch import Tensor, nn

MOST_LATENTS = 128
"""Components of a latent. Longer embeddings are projected on as many directions, those of largest variance."""
FAR = 1000.0
"""Times as far from the middle as half of all items: such a vector is broken."""
_MOST_FITTED = 8192
"""Items whose directions are found."""
_STEPS = 2**20
"""Steps from a component's mean to the sample's farthest value. What is twice as far, or farther, counts as that."""
_WEIGHT_STEPS = 2**15
"""Steps from 0 to 1 of a coordinate of a direction."""


class Standardiser(nn.Module):
    """Constants of a sample of embeddings, and with them the latent of an item, which is what the networks see and what
    clusters, duplicates and maps compare. Frozen: buffers, in float32 exactly.

    A latent is the embedding minus the sample's mean, times one number, so that all components together have variance
    1; of embeddings longer than MOST_LATENTS the principal components (Pearson 1901) with the largest variances. A
    scale for each component would make as much of those that hardly vary as of those in which the items differ.

    The same bits for an item in any batch, in any order of sums and on any machine: values and directions are whole
    numbers of steps, and float64 holds sums of 2**16 of their products exactly.
    """

    mean_D: Tensor
    step: Tensor
    directions_ZD: Tensor
    scale: Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.num_latents = length, min(length, MOST_LATENTS)
        self.register_buffer("mean_D", torch.zeros(length))
        self.register_buffer("step", torch.ones(()))
        self.register_buffer("directions_ZD", torch.zeros(self.num_latents, length))
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def fit(cls, vector_ND: Tensor) -> "Standardiser":
        """The constants of these embeddings (N, D), N >= 1, finite, on the CPU."""
        made, x_ND = cls(vector_ND.shape[1]), _plausible(vector_ND.double().cpu())
        made.mean_D.copy_(x_ND.mean(dim=0))
        # With the mean as it is kept.
        centred_ND = x_ND - made.mean_D.double()
        farthest = float(centred_ND.abs().max())
        if farthest <= 1e-6 * float(x_ND.abs().max()):
            # Equal items differ from their mean by its rounding only, and have no scale of their own.
            farthest = max(1.0, float(x_ND.abs().max()))
        # A power of two, which rounds nothing.
        made.step.fill_(2.0 ** math.ceil(math.log2(farthest / _STEPS)))
        if made.length > MOST_LATENTS:
            directions_ZD = _principal_directions(centred_ND[:_MOST_FITTED], MOST_LATENTS)
            made.directions_ZD.copy_((directions_ZD * _WEIGHT_STEPS).round())
        size = float(made._products(x_ND).square().mean().sqrt())
        made.scale.fill_(1 / size if size > 0 else 1)
        return made

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "Standardiser":
        """From the tensors of `state_dict`."""
        made = cls(len(state["mean_D"]))
        made.load_state_dict(state)
        return made

    @property
    def factor(self) -> float:
        """How many times longer a distance between latents is than between embeddings."""
        return float(self.scale / self.step) * (_WEIGHT_STEPS if self.length > MOST_LATENTS else 1)

    def forward(self, vector_ND: Tensor) -> Tensor:
        """The latents (N, Z) of embeddings (N, D), float32."""
        return (self._products(vector_ND) * self.scale.double()).float()

    def _products(self, vector_ND: Tensor) -> Tensor:
        """Whole numbers (N, Z) in float64, below 2**53."""
        steps_ND = ((vector_ND.float() - self.mean_D) / self.step).round().clamp(-2 * _STEPS, 2 * _STEPS).double()
        return steps_ND if self.length <= MOST_LATENTS else steps_ND @ self.directions_ZD.double().T


def _plausible(x_ND: Tensor) -> Tensor:
    """Without the items that are FAR times as far from the middle as half of all: one broken vector must not decide
    the scale of all others."""
    distance_N = (x_ND - x_ND.median(dim=0).values).norm(dim=1)
    middle = float(distance_N.median())
    return x_ND[distance_N <= FAR * middle] if middle > 0 else x_ND


def _principal_directions(centred_ND: Tensor, count: int) -> Tensor:
    """The directions (count, D) float64 of largest variance, the largest first, of length 1; of each, the largest
    coordinate is positive. Zeros where the items vary in fewer."""
    num_items, length = centred_ND.shape
    if length <= num_items:
        values, vectors = torch.linalg.eigh(centred_ND.T @ centred_ND)
    else:
        # Of a smaller matrix: the eigenvectors of X'X are X' times those of XX'.
        values, vectors = torch.linalg.eigh(centred_ND @ centred_ND.T)
        vectors = centred_ND.T @ vectors
    found = min(count, int((values > 1e-10 * values[-1]).sum()))
    first_DZ = vectors.flip(1)[:, :found]
    largest_Z = first_DZ.gather(0, first_DZ.abs().argmax(dim=0, keepdim=True))
    directions_ZD = torch.zeros(count, length, dtype=torch.float64)
    directions_ZD[:found] = (first_DZ * largest_Z.sign() / first_DZ.norm(dim=0)).T
    return directions_ZD
