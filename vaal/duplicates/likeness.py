"""Whether nearness of latents means likeness of pictures, judged on the candidates themselves.

Latents that carry little (one axis has most of the variance, or the posterior has nearly collapsed) are near one
another for unlike pictures too. Then nearness says nothing, and must not drop a picture as a duplicate.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaal.duplicates.perceptual_hash import Hashes

SAMPLE_SIZE = 64
"""Items of the pool whose pairs are random pairs: 2,016 of them."""
MOST_PROBES, MOST_OTHERS = 1000, 20_000
"""Candidates of which the nearest other is looked for, and those among which: random samples where there are more."""
LEAST_PAIRS = 20
"""Near pairs by which likeness can be judged."""
ALIKE_QUANTILE = 0.05
"""Two pictures are alike if their hashes differ less than those of all but this share of random pairs."""
LEAST_ALIKE = 0.5
"""The share of near pairs that must be alike. By chance it is ALIKE_QUANTILE."""
MOST_BY_CHANCE = 0.005
"""Where pictures cannot judge: the share of random pairs that may be near."""


class Pictures(NamedTuple):
    """N items: their latents (N, Z) float32 and the hashes of their pictures."""

    latent_NZ: NDArray[np.float32]
    hashes: Hashes


class Likeness(NamedTuple):
    """Whether nearness counts; the near pairs that could be judged and the share of them that is alike, None where they
    were too few; and the share of random pairs that is near."""

    counts: bool
    num_pairs: int
    alike: float | None
    by_chance: float


def judge_likeness(candidates: Pictures, pool: Pictures, cosine: float, seed: int) -> Likeness:
    """Whether candidates whose latents have at least this cosine look alike. `pool` is a random sample of the pool.

    Each probe's nearest other candidate makes a pair, near where it reaches the cosine. Near pairs with hashes are
    compared with the pairs of the pool's sample. With fewer than LEAST_PAIRS of them, nearness counts if random pairs
    are hardly ever near. It never does if more random pairs are near than alike: the nearest of many frames of a film
    are alike even where most pairs are near. A zero latent is near no other. O(MOST_PROBES x MOST_OTHERS x Z) time.
    """
    rng, pairs = np.random.default_rng(seed), np.triu_indices(len(pool.latent_NZ), 1)
    sample_NZ, unit_MZ = _unit(pool.latent_NZ), _unit(candidates.latent_NZ)
    by_chance = float(np.mean((sample_NZ @ sample_NZ.T)[pairs] >= cosine)) if len(pairs[0]) else 0.0
    if len(unit_MZ) < 2:
        return Likeness(by_chance <= MOST_BY_CHANCE, 0, None, by_chance)
    probe_N, other_K = (rng.permutation(len(unit_MZ))[:most] for most in (MOST_PROBES, MOST_OTHERS))
    cosine_NK = unit_MZ[probe_N] @ unit_MZ[other_K].T
    cosine_NK[probe_N[:, None] == other_K] = -1
    nearest_N = cosine_NK.argmax(axis=1)
    is_near_N = cosine_NK[np.arange(len(probe_N)), nearest_N] >= cosine
    near_F = _bits(candidates.hashes, probe_N[is_near_N], other_K[nearest_N[is_near_N]])
    random_F = _bits(pool.hashes, *pairs)
    if min(len(near_F), len(random_F)) < LEAST_PAIRS:
        return Likeness(by_chance <= MOST_BY_CHANCE, len(near_F), None, by_chance)
    alike = float(np.mean(near_F < np.quantile(random_F, ALIKE_QUANTILE)))
    return Likeness(alike >= LEAST_ALIKE and by_chance <= ALIKE_QUANTILE, len(near_F), alike, by_chance)


def _unit(latent_NZ: NDArray[np.float32]) -> NDArray[np.float32]:
    """Latents of length 1; zero ones stay zero."""
    length_N = np.linalg.norm(latent_NZ, axis=1, keepdims=True)
    unit_NZ: NDArray[np.float32] = np.divide(latent_NZ, length_N, out=np.zeros_like(latent_NZ), where=length_N > 0)
    return unit_NZ


def _bits(hashes: Hashes, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.int64]:
    """In how many bits the hashes of these pairs differ, without the pairs of which one has no hash."""
    has_both = hashes.has_hash_N[first] & hashes.has_hash_N[second]
    differ = hashes.hash_NB[first[has_both]] ^ hashes.hash_NB[second[has_both]]
    bits: NDArray[np.int64] = np.bitwise_count(differ).sum(axis=1, dtype=np.int64)
    return bits
