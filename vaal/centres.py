"""Centres that cut the pool into clusters, and the exact nearest centre of a latent.

Latents and centres are whole numbers of 8 bits. Their products are then exact in float32, in any order of summation: no
batch size, number of threads or device changes an assignment, which is a function of the latent and the centres alone.

Shape suffixes: N items, C centres, Z latent units.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGEST = 127
MOST_LATENTS = 1040
"""Z times the square of LARGEST is below 2**24, up to which float32 holds every whole number."""
WITHIN = 0.999
"""Share of the values that the scale covers; the others are cut to LARGEST."""
BLOCK_VALUES = 2**20
"""Distances held at a time: about what a processor's cache holds."""
ITERATIONS = 5


class Centres(NamedTuple):
    """Centres, whole numbers in float32 (C, Z), and the scale of latents: `middle_Z` is taken away, and what is left
    counts in units of `scale`."""

    centre_CZ: Tensor
    middle_Z: Tensor
    scale: Tensor

    def of(self, latent_NZ: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest centre (N,) of each latent and the squared distance (N,) in units of the scale, both int32.

        A latent counts as float16, as it is stored, so that stored latents have the same clusters.
        """
        x_NZ = quantise(latent_NZ.half().float(), self.middle_Z, self.scale)
        return nearest(x_NZ, self.centre_CZ)

    def to(self, device: torch.device) -> "Centres":
        return Centres(*(tensor.to(device) for tensor in self))


def scale_of(latent_NZ: Tensor) -> tuple[Tensor, Tensor]:
    """The middle (Z,) and the scale () of latents: with them WITHIN of all values are within LARGEST."""
    latent_NZ = latent_NZ.half().float()
    middle_Z = latent_NZ.double().mean(dim=0).float()
    size = np.quantile((latent_NZ - middle_Z).abs().numpy(), WITHIN)
    return middle_Z, torch.tensor(max(float(size), 1e-6) / LARGEST, dtype=torch.float32)


def quantise(latent_NZ: Tensor, middle_Z: Tensor, scale: Tensor) -> Tensor:
    """Latents (N, Z) as whole numbers of 8 bits in float32. Every step is rounded once, so all devices agree."""
    return ((latent_NZ - middle_Z) / scale).round().clamp(-LARGEST, LARGEST)


def nearest(x_NZ: Tensor, centre_CZ: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre (N,) int32 and the squared distance (N,) int32, exact; ties go to the lowest number.

    Both are whole numbers in float32, from -LARGEST to LARGEST. O(N C Z) time.

    Raises ValueError if there are no centres, or more than MOST_LATENTS units.
    """
    if not len(centre_CZ) or x_NZ.shape[1] > MOST_LATENTS:
        raise ValueError(f"{len(centre_CZ)} centres of {x_NZ.shape[1]} units; at least one of at most {MOST_LATENTS}")
    centre_ZC, norm_C = centre_CZ.T.contiguous(), centre_CZ.square().sum(dim=1)
    found = []
    step = max(1, BLOCK_VALUES // len(centre_CZ))
    for begin in range(0, len(x_NZ), step):
        block_BZ = x_NZ[begin : begin + step]
        place_B, gap_B = _least(block_BZ, centre_ZC, norm_C)
        found.append((place_B.to(torch.int32), gap_B.to(torch.int32) + block_BZ.square().sum(dim=1).to(torch.int32)))
    none = torch.empty(0, dtype=torch.int32, device=x_NZ.device)
    cluster_N, distance_N = (torch.cat([none, *parts]) for parts in (zip(*found, strict=True) if found else ((), ())))
    return cluster_N, distance_N


def _least(x_BZ: Tensor, centre_ZC: Tensor, norm_C: Tensor) -> tuple[Tensor, Tensor]:
    """The first of the centres (B,) with the least norm - 2 x . centre, and that (B,), whole numbers."""
    if 3 * len(centre_ZC) * LARGEST**2 < 2**24:
        # Float32 holds the gaps too: they need no second pass.
        gap_BC = torch.addmm(norm_C, x_BZ, centre_ZC, alpha=-2)
    else:
        gap_BC = (x_BZ @ centre_ZC).to(torch.int32).mul_(-2).add_(norm_C.to(torch.int32))
    if gap_BC.device.type == "cpu":
        # NumPy takes a tenth of the time that torch takes. It finds the first, too.
        place_B = torch.from_numpy(gap_BC.numpy().argmin(axis=1))
        return place_B, gap_BC.gather(1, place_B[:, None])[:, 0]
    least_B, place_B = gap_BC.min(dim=1)
    return place_B, least_B


def k_means(
    x_NZ: Tensor, num_centres: int, seed: int, weight_N: NDArray[np.int64] | None = None, iterations: int = ITERATIONS
) -> Tensor:
    """At most `num_centres` distinct centres (C, Z), whole numbers in float32, by Lloyd's iterations.

    The first centres are items, drawn by k-means++ (Arthur and Vassilvitskii 2007) with weights, else at random: where
    every centre has few items, that is as good and much faster. All sums are of whole numbers: the same centres on any
    machine.

    Args:
        x_NZ: whole numbers in float32, from -LARGEST to LARGEST.
        weight_N: how often each item counts, (N,) int64.

    Raises ValueError if there are no items.
    """
    if not len(x_NZ):
        raise ValueError("there are no items to find centres for")
    rng = np.random.default_rng(seed)
    if weight_N is None:
        centre_CZ = x_NZ[torch.from_numpy(np.sort(rng.permutation(len(x_NZ))[:num_centres]))]
    else:
        centre_CZ = _spread(x_NZ, num_centres, weight_N, rng)
    centre_CZ = _distinct(centre_CZ)
    weight = torch.ones(len(x_NZ), dtype=torch.int64) if weight_N is None else torch.from_numpy(weight_N)
    weighted_NZ = x_NZ.to(torch.int64) * weight[:, None]
    for _ in range(iterations):
        cluster_N = nearest(x_NZ, centre_CZ)[0].to(torch.int64)
        count_C = torch.zeros(len(centre_CZ), dtype=torch.int64).index_add(0, cluster_N, weight)
        sum_CZ = torch.zeros(centre_CZ.shape, dtype=torch.int64).index_add(0, cluster_N, weighted_NZ)
        is_used_C = count_C > 0
        mean_CZ = (sum_CZ[is_used_C].double() / count_C[is_used_C, None]).round()
        centre_CZ = _distinct(mean_CZ.float())
    return centre_CZ


def _distinct(centre_CZ: Tensor) -> Tensor:
    found: Tensor = torch.unique(centre_CZ, dim=0)
    return found


def _spread(x_NZ: Tensor, num_centres: int, weight_N: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """k-means++: each further centre is an item drawn by its weight times its squared distance from those before."""
    chosen = [int(np.searchsorted(weight_N.cumsum(), rng.integers(max(1, weight_N.sum())), side="right"))]
    least_N = np.full(len(x_NZ), np.iinfo(np.int64).max)
    while len(chosen) < num_centres:
        least_N = np.minimum(least_N, nearest(x_NZ, x_NZ[chosen[-1:]])[1].numpy().astype(np.int64))
        mass_N = (least_N * weight_N.astype(np.float64)).cumsum()
        if not mass_N[-1]:
            break
        chosen.append(int(np.searchsorted(mass_N, rng.random() * mass_N[-1], side="right")))
    return x_NZ[torch.tensor(chosen)]
