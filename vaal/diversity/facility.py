"""Facility location: choices that represent all candidates, by a greedy algorithm in one round or two.

f(S) is the mean, over a ground set of candidates, of the similarity to the most similar item of S or of those already
taken. It is monotone and submodular, so greedy reaches 1 - 1/e of the largest gain there is (Nemhauser et al. 1978).

The similarity is exp(-(d / m)^2), d the Euclidean distance of two latents and m the median distance of candidates. It
is 1 for duplicates and 0 far away, and does not depend on the shift, the scale or a rotation of the latents.

Shape suffixes: M candidates, G ground set, L taken, Z latent units, Y = Z + 2, R rows of a block.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_between, require_finite
from vaal.diversity import MOST_COVERING, Choice

Array = NDArray[np.float32]

MOST_GROUND = 10_000
"""The ground set is all candidates, or a random sample of this many if there are more."""
MOST_PICKS = MOST_COVERING
PART_ITEMS = 65_536
"""Most candidates in a part of the two rounds."""
MEDIAN_PAIRS = 10_000
BLOCK_VALUES = 2**19
"""Similarities held at a time."""
FIRST_LOOK = 16
"""Gains renewed first in a step of the lazy greedy; then twice as many, and so on."""


class Cover(NamedTuple):
    """Candidates and ground set, lifted so that their product is the exponent; what the taken items cover already; how
    much the items of the ground set count, None for all alike."""

    candidate_MY: Array
    ground_YG: Array
    covered_G: Array
    weight_G: Array | None = None


def two_round_cover(latent_MZ: Array, taken_LZ: Array, b: int, seed: int, num_parts: int = 0) -> Choice:
    """RandGreeDi (Barbosa et al. 2015, arXiv 1502.02606): greedy in each random part, then on what all parts chose.

    Returns the better by f of that and of the best part's choice: at least (1 - 1/e) / 2 of the largest gain in
    expectation. With one part it is the plain greedy; 0 parts means as few as hold at most PART_ITEMS candidates each.
    The parts share the ground set. `seed` draws the ground set, the pairs of the median and the parts.

    Each choice of the greedy adds the most to f; ties (up to rounding) go to the lowest index. Lazy (Minoux 1978): a
    gain is computed again only where its last value could still be the largest. O(M G Z) time for the first choice,
    some hundreds of candidates (G Z each) for every other; O(M Z + BLOCK_VALUES) memory. One core, 32 latents, one
    part: 1,000 of 10,000 in 2 s, 1,000 of 1,000,000 in 140 s.

    Raises ValueError if b is not from 1 to M or is above MOST_PICKS, or a latent is not finite.
    """
    require_cover("facility", latent_MZ, taken_LZ, b)
    return cover_in_two_rounds(_prepare(latent_MZ, taken_LZ, seed), b, seed, num_parts)


def require_cover(name: str, latent_MZ: Array, taken_LZ: Array, b: int) -> None:
    """Raises ValueError if b is not from 1 to M or is above MOST_PICKS, or a latent is not finite."""
    require_between(f"b of {name}", b, 1, min(len(latent_MZ), MOST_PICKS))
    require_finite("candidate latents", latent_MZ)
    require_finite("taken latents", taken_LZ)


def cover_in_two_rounds(cover: Cover, b: int, seed: int, num_parts: int = 0) -> Choice:
    """The choice of `two_round_cover`, in any space and with any weights: its f is then a weighted mean."""
    num_candidates = len(cover.candidate_MY)
    num_parts = num_parts or -(-num_candidates // PART_ITEMS)
    order_M = np.random.default_rng([seed, 1]).permutation(num_candidates)
    parts = [np.sort(part) for part in np.array_split(order_M, num_parts)]
    choices = [_greedy(cover, part, min(b, len(part))) for part in parts if len(part)]
    if len(choices) > 1:
        union = np.sort(np.concatenate([choice.picked_B for choice in choices]))
        choices = [_greedy(cover, union, b), *choices]
    # The first of equals: a part smaller than b may tie with the union's choice.
    return max((choice for choice in choices if len(choice.picked_B) == b), key=lambda choice: choice.objective or 0.0)


def _prepare(latent_MZ: Array, taken_LZ: Array, seed: int) -> Cover:
    random = np.random.default_rng(seed)
    num_candidates = len(latent_MZ)
    pairs = latent_MZ[random.integers(num_candidates, size=(2, MEDIAN_PAIRS))]
    distances = np.linalg.norm((pairs[0] - pairs[1]).astype(np.float64), axis=1)
    apart = distances[distances > 0]
    scale = np.sqrt(2) / np.median(apart) if len(apart) else 1.0
    middle_Z = latent_MZ.mean(axis=0, dtype=np.float64)
    ground = np.arange(num_candidates)
    if num_candidates > MOST_GROUND:
        ground = np.sort(random.choice(num_candidates, MOST_GROUND, replace=False))
    candidate_MY = lift(latent_MZ, middle_Z, scale)
    return cover_of(candidate_MY, candidate_MY[ground], lift(taken_LZ, middle_Z, scale))


def cover_of(candidate_MY: Array, ground_GY: Array, taken_LY: Array, weight_G: Array | None = None) -> Cover:
    """The task of covering a ground set, from lifted latents."""
    ground_YG = np.ascontiguousarray(np.concatenate([ground_GY[:, :-2], ground_GY[:, :-3:-1]], axis=1).T)
    covered_G = np.zeros(len(ground_GY), np.float32)
    for block in _blocks(len(taken_LY), len(ground_GY)):
        np.maximum(covered_G, _similarity(taken_LY[block], ground_YG).max(axis=0), out=covered_G)
    return Cover(candidate_MY, ground_YG, covered_G, weight_G)


def lift(latent_NZ: Array, middle_Z: NDArray[np.float64], scale: float) -> Array:
    """(x, 1, -|x|^2 / 2), whose product with (y, -|y|^2 / 2, 1) is -|x - y|^2 / 2."""
    lifted_NY = np.ones((len(latent_NZ), latent_NZ.shape[1] + 2), np.float32)
    lifted_NY[:, :-2] = (latent_NZ - middle_Z.astype(np.float32)) * np.float32(scale)
    lifted_NY[:, -1] = -0.5 * np.einsum("nz,nz->n", lifted_NY[:, :-2], lifted_NY[:, :-2])
    return lifted_NY


def _blocks(num_rows: int, num_columns: int) -> list[slice]:
    size = max(1, BLOCK_VALUES // num_columns)
    return [slice(begin, begin + size) for begin in range(0, num_rows, size)]


def _similarity(row_RY: Array, ground_YG: Array) -> Array:
    similarity_RG: Array = row_RY @ ground_YG
    np.minimum(similarity_RG, 0, out=similarity_RG)
    np.exp(similarity_RG, out=similarity_RG)
    return similarity_RG


def _gains(row_MY: Array, cover: Cover, covered_G: Array) -> NDArray[np.float64]:
    """The sum over the ground set that each candidate alone would add."""
    gain_M = np.empty(len(row_MY))
    for block in _blocks(len(row_MY), len(covered_G)):
        similarity_RG = _similarity(row_MY[block], cover.ground_YG)
        similarity_RG -= covered_G
        np.maximum(similarity_RG, 0, out=similarity_RG)
        if cover.weight_G is not None:
            similarity_RG *= cover.weight_G
        gain_M[block] = similarity_RG.sum(axis=1)
    return gain_M


def _greedy(cover: Cover, part_P: NDArray[np.intp], b: int) -> Choice:
    candidate_PY = cover.candidate_MY[part_P]
    covered_G = cover.covered_G.copy()
    bound_P = _gains(candidate_PY, cover, covered_G)
    renewed_P = np.zeros(len(part_P), np.intp)
    picked: list[int] = []
    for step in range(b):
        look = FIRST_LOOK
        while renewed_P[leader := int(bound_P.argmax())] != step:
            look = min(look, len(part_P))
            top = np.argpartition(bound_P, len(part_P) - look)[-look:]
            stale = top[(renewed_P[top] != step) & (bound_P[top] > -np.inf)]
            bound_P[stale] = _gains(candidate_PY[stale], cover, covered_G)
            renewed_P[stale] = step
            look *= 2
        picked.append(leader)
        np.maximum(covered_G, _similarity(candidate_PY[leader : leader + 1], cover.ground_YG)[0], out=covered_G)
        bound_P[leader] = -np.inf
    return Choice(part_P[picked], float(np.average(covered_G.astype(np.float64), weights=cover.weight_G)))
