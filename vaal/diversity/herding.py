"""MaxHerding and UHerding: generalised coverage of the pool, by a greedy algorithm (Bae, Noh and Sutherland, ECCV 2024;
Bae, Oliveira and Sutherland, ICLR 2025).

f(S) = sum over references r of u_r max over s in S and in what is taken of k(s, r), over the sum of u_r, with
k(s, r) = exp(-(d / sigma)^2), d the distance of latents that are scaled to length 1. MaxHerding counts all references
alike; UHerding by how uncertain they are, so it covers what the task learner is unsure of. It is facility location
(`vaal.diversity.facility`) in another space, with weights, and over another ground set.

The papers take sigma = 1 at first, then the smallest distance of two labelled items: the kernel gets narrower as labels
come, and coverage turns into uncertainty sampling. But one pair of near duplicates makes that 0, and nothing is covered
any more. Here sigma is the lower decile of the distances to the nearest neighbour among distinct taken items, without
those below NEAR of their median, and at least LEAST_SIGMA.

Shape suffixes: M candidates, R references, L taken, Z latent units.
"""

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_finite
from vaal.diversity import Choice
from vaal.diversity.facility import MOST_GROUND, Array, cover_in_two_rounds, cover_of, lift, require_cover
from vaal.diversity.gumbel import require_worth

MOST_SCALED = 10_000
"""Taken items by which sigma is measured: all, or a random sample of this many."""
DECILE = 0.1
NEAR = 0.1
FIRST_SIGMA = 1.0
"""Where fewer than two distinct items are taken."""
LEAST_SIGMA = 0.01
"""With less, the exponent would be lost in the rounding of float32."""
BLOCK_ITEMS = 512


def herding(latent_MZ: Array, taken_LZ: Array, sample_RZ: Array, b: int, seed: int) -> Choice:
    """MaxHerding: b candidates that cover a random sample of the pool best, beside what is taken, and f of them.

    Time, memory and parts are those of `vaal.diversity.facility.two_round_cover` with G = R; `seed` draws the parts and
    the sample for sigma.

    Raises ValueError if b is not from 1 to M or is above facility's MOST_PICKS, the sample is empty, or a latent is not
    finite.
    """
    require_cover("herding", latent_MZ, taken_LZ, b)
    require_finite("sampled latents", sample_RZ)
    if not len(sample_RZ):
        raise ValueError("herding has no sample of the pool to cover")
    return _covered(latent_MZ, taken_LZ, sample_RZ, None, b, seed)


def uherding(latent_MZ: Array, taken_LZ: Array, worth_M: NDArray[np.float64], b: int, seed: int) -> Choice:
    """UHerding: b candidates that cover the candidates best, each by its worth, beside what is taken, and f of them.

    The references are the candidates, for only of them is the uncertainty known here: all, or a random sample of
    MOST_GROUND. Where none is worth anything all count alike. Time, memory and parts are as for `herding`.

    Raises ValueError if b is not from 1 to M or is above facility's MOST_PICKS, a worth is negative, or a value is not
    finite.
    """
    require_cover("uherding", latent_MZ, taken_LZ, b)
    require_worth(worth_M)
    ground = np.arange(len(latent_MZ))
    if len(ground) > MOST_GROUND:
        ground = np.sort(np.random.default_rng([seed, 2]).choice(len(ground), MOST_GROUND, replace=False))
    weight_R = worth_M[ground]
    # As a share of the largest, a worth fits float32.
    weight = (weight_R / weight_R.max()).astype(np.float32) if weight_R.any() else None
    return _covered(latent_MZ, taken_LZ, latent_MZ[ground], weight, b, seed)


def _covered(
    latent_MZ: Array, taken_LZ: Array, reference_RZ: Array, weight_R: Array | None, b: int, seed: int
) -> Choice:
    unit_RZ, taken_unit_LZ = unit(reference_RZ), unit(taken_LZ)
    middle_Z, scale = unit_RZ.mean(axis=0, dtype=np.float64), np.sqrt(2) / sigma_of(taken_unit_LZ, seed)
    candidate, reference, taken = (lift(x, middle_Z, scale) for x in (unit(latent_MZ), unit_RZ, taken_unit_LZ))
    return cover_in_two_rounds(cover_of(candidate, reference, taken, weight_R), b, seed)


def unit(latent_NZ: Array) -> Array:
    """Latents scaled to length 1, float32; zeros stay zeros."""
    length_N = np.linalg.norm(latent_NZ.astype(np.float64), axis=1, keepdims=True)
    return (latent_NZ / np.where(length_N > 0, length_N, 1)).astype(np.float32)


def sigma_of(unit_LZ: Array, seed: int) -> float:
    """The width of the kernel, from taken latents of length 1. O(min(L, MOST_SCALED)^2 Z) time."""
    if len(unit_LZ) > MOST_SCALED:
        unit_LZ = unit_LZ[np.sort(np.random.default_rng([seed, 3]).choice(len(unit_LZ), MOST_SCALED, replace=False))]
    wide_LZ = np.unique(unit_LZ, axis=0).astype(np.float64)
    if len(wide_LZ) < 2:
        return FIRST_SIGMA
    norm_L = np.einsum("lz,lz->l", wide_LZ, wide_LZ)
    nearest_L = np.empty(len(wide_LZ))
    for begin in range(0, len(wide_LZ), BLOCK_ITEMS):
        rows = slice(begin, begin + BLOCK_ITEMS)
        squared_BL = norm_L[rows, None] + norm_L - 2 * wide_LZ[rows] @ wide_LZ.T
        squared_BL[np.arange(len(squared_BL)), begin + np.arange(len(squared_BL))] = np.inf
        nearest_L[rows] = np.sqrt(squared_BL.min(axis=1).clip(min=0))
    apart = nearest_L[nearest_L >= NEAR * np.median(nearest_L)]
    return max(LEAST_SIGMA, float(np.quantile(apart, DECILE)))
