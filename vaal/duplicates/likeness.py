"""Whether nearness of latents means likeness of pictures, judged on a random sample of the pool.

Latents that carry little (one axis has most of the variance, or the posterior has nearly collapsed) are near one
another for unlike pictures too. Then nearness says nothing, and must not drop a picture as a duplicate.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaal.duplicates.perceptual_hash import Hashes

SAMPLE_SIZE = 2000
"""Items of the sample: 1,999,000 pairs. Where as few as 1 of 100,000 pairs is near, there are LEAST_PAIRS of them."""
COMPARED = 256
"""Items of the sample whose pairs show how much the hashes of random pairs differ: 32,640 of them."""
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


def judge_likeness(pool: Pictures, cosine: float) -> Likeness:
    """Whether items whose latents have at least this cosine look alike.

    Each item's nearest other makes a pair, near where it reaches the cosine. Near pairs with hashes are compared with
    random pairs. With fewer than LEAST_PAIRS of them, nearness counts if random pairs are hardly ever near. It never
    does if more random pairs are near than alike: the nearest of many frames of a film are alike even where most pairs
    are near. A zero latent is near no other. O(N^2 Z) time, O(N^2) memory.

    Args:
        pool: a random sample of the pool, in random order. It must not depend on what is about to be picked: else the
            verdict would change with the number of candidates.
    """
    unit_NZ, all_N = _unit(pool.latent_NZ), np.arange(len(pool.latent_NZ))
    if len(all_N) < 2:
        return Likeness(True, 0, None, 0.0)
    cosine_NN = unit_NZ @ unit_NZ.T
    np.fill_diagonal(cosine_NN, -np.inf)
    by_chance = float(np.count_nonzero(cosine_NN >= cosine) / (len(all_N) * (len(all_N) - 1)))
    nearest_N = cosine_NN.argmax(axis=1)
    is_near_N = cosine_NN[all_N, nearest_N] >= cosine
    near_F = _bits(pool.hashes, all_N[is_near_N], nearest_N[is_near_N])
    random_F = _bits(pool.hashes, *np.triu_indices(min(len(all_N), COMPARED), 1))
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
