"""The scale on which networks and distances see embeddings, fitted once on a sample of the pool.

Shape suffixes: N sample, B batch, D components of an embedding, Z latent units.
"""

import math

import torch
from torch import Tensor, nn

MAX_LATENTS = 128
"""Most units of the latent that clusters, duplicates and maps share."""
_SAMPLE = 8192
"""Items that the principal components are of: more change nothing that clusters see."""
_STEPS = 2**20
"""Steps from a component's mean to the sample's farthest value. Values up to twice as far have a step of their own."""
_WEIGHTS = 2**15
"""Steps from 0 to 1 of a weight of a principal component."""


class Standardiser(nn.Module):
    """Embeddings on a scale of their own: what networks see of them, and the latent that all else compares.

    Everything is in buffers, so a state dict brings it all back, from float32 exactly.
    """

    shift_D: Tensor
    gain_D: Tensor
    step: Tensor
    components_ZD: Tensor
    unit: Tensor

    def __init__(self, num_components: int) -> None:
        super().__init__()
        self.num_components = num_components
        self.num_latents = min(MAX_LATENTS, num_components)
        for name, value in {
            "shift_D": torch.zeros(num_components),
            "gain_D": torch.ones(num_components),
            "step": torch.ones(()),
            "components_ZD": torch.zeros(self.num_latents, num_components),
            "unit": torch.ones(()),
        }.items():
            self.register_buffer(name, value)

    @staticmethod
    def fitted(sample_ND: Tensor) -> "Standardiser":
        """The scale of a sample (N, D) of the pool.

        Raises ValueError if a value is not finite, or all items are equal.
        """
        sample_ND = sample_ND.double().cpu()
        if not torch.isfinite(sample_ND).all():
            raise ValueError("embeddings of the sample are not finite")
        made = Standardiser(sample_ND.shape[1])
        made.shift_D.copy_(sample_ND.mean(0))
        # As it is stored, so that what is centred here is what will be centred.
        centred_ND = sample_ND - made.shift_D.double()
        variance_D = (centred_ND**2).mean(0)
        farthest = float(centred_ND.abs().max())
        # Of equal items rounding leaves a remainder.
        if farthest <= 1e-6 * float(sample_ND.abs().max()):
            raise ValueError(f"all {len(sample_ND)} embeddings of the sample are equal")
        std_D = variance_D.sqrt()
        made.gain_D.copy_(1 / torch.where(std_D > 1e-6 * farthest, std_D, torch.ones_like(std_D)))
        # A power of two, by which nothing is rounded.
        made.step.fill_(2.0 ** math.ceil(math.log2(farthest / _STEPS)))
        components_ZD = _components(centred_ND[:_SAMPLE], made.num_latents)
        made.components_ZD.copy_((components_ZD * _WEIGHTS).round())
        found_NZ = made._products(sample_ND)
        made.unit.copy_((found_NZ**2).mean().rsqrt())
        return made

    def inputs(self, x_BD: Tensor) -> Tensor:
        """What the networks see (B, D) float32: of mean 0 and variance 1 over the sample, where a component varies."""
        return (x_BD.float() - self.shift_D) * self.gain_D

    def latents(self, x_BD: Tensor) -> Tensor:
        """The shared latent (B, Z) float32: the embedding's first MAX_LATENTS principal components, all of it where it
        has no more. Distances are those of the embedding on one scale, on which a unit's mean square is 1.

        The same bits for an item in any batch, on any machine: embeddings and weights are whole numbers of steps, of
        which float64 adds products exactly.
        """
        return (self._products(x_BD) * self.unit.double()).float()

    def _products(self, x_BD: Tensor) -> Tensor:
        """Integers (B, Z) float64, below 2**53 for up to 2**16 components."""
        steps_BD = ((x_BD.float() - self.shift_D) / self.step).round().clamp(-2 * _STEPS, 2 * _STEPS).double()
        if self.num_components <= MAX_LATENTS:
            return steps_BD
        return steps_BD @ self.components_ZD.double().T


def _components(centred_ND: Tensor, num: int) -> Tensor:
    """The first principal components (num, D) float64, each of length 1 with its largest weight positive; zeros where
    the sample has fewer."""
    num_items, num_components = centred_ND.shape
    found_ZD = torch.zeros(num, num_components, dtype=torch.float64)
    if num_components <= MAX_LATENTS:
        return found_ZD
    if num_components <= num_items:
        values, vectors = torch.linalg.eigh(centred_ND.T @ centred_ND)
    else:
        # The same of fewer numbers: the eigenvectors of X'X are X' times those of XX'.
        values, vectors = torch.linalg.eigh(centred_ND @ centred_ND.T)
        vectors = centred_ND.T @ vectors
    count = min(num, int((values > 1e-10 * values[-1]).sum()))
    first_DZ = vectors.flip(1)[:, :count]
    first_DZ = first_DZ / first_DZ.norm(dim=0)
    largest_Z = first_DZ.gather(0, first_DZ.abs().argmax(0, keepdim=True))
    found_ZD[:count] = (first_DZ * largest_Z.sign()).T
    return found_ZD
