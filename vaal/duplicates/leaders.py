"""Leaders: which of some items, in order of priority, resemble no item kept before; exact, without comparing all pairs.

The definition goes item by item: an item is dropped if it is near a kept one, and the earliest of these is its leader.
The algorithm divides and conquers: it settles the first half, drops the items of the second half that the kept rows of
the first lead, and settles the rest. Items with many neighbours drop early, which bounds time and memory for a pool of
similar items.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_between, require_finite
from vaal.duplicates.nearness import FEW_ROWS, Cosine, Hamming, Rows

Near = Cosine | Hamming


def cosine_leaders(
    latent_NZ: NDArray[np.float32], threshold: float, num_fixed: int, *, only_fixed: bool = False
) -> Rows:
    """The leader (N,) of each row, itself where it is kept. The first `num_fixed` rows are always kept. With
    `only_fixed` no other row leads, but for equal ones.

    Two rows are near if their cosine, in float64, is at least `threshold`, up to COSINE_ROUNDING, or if they are equal;
    a row of zeros is near none. O(N Z + BLOCK_PAIRS) memory; at most N^2 Z / 2 operations. Rows in one half are
    compared only with the kept rows of the other half in cells, of NUM_CELLS, that they can reach.

    Raises ValueError if threshold is not in (0, 1], num_fixed is not from 0 to N, or a latent is not finite.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    require_finite("latents", latent_NZ)
    is_comparable_N = (latent_NZ != 0).any(axis=1)
    return _leaders(latent_NZ, is_comparable_N, num_fixed, only_fixed, lambda rows: Cosine(latent_NZ[rows], threshold))


def hamming_leaders(
    hash_NB: NDArray[np.uint8], has_hash_N: NDArray[np.bool_], max_distance: int, num_fixed: int,
    mirror_mask: NDArray[np.uint8], *, only_fixed: bool = False,
) -> Rows:  # fmt: skip
    """The leader (N,) of each row, itself where it is kept. The first `num_fixed` rows are always kept; `only_fixed` is
    as for `cosine_leaders`.

    Two rows are near if they differ in at most `max_distance` bits, as they are or with the bits of `mirror_mask` (B,)
    flipped in one of them; a row without a hash is near none. Multi-index hashing (Norouzi, Punjani and Fleet 2012): at
    least one of max_distance // 2 + 1 parts of two near hashes differs in at most one bit. O(N B + BLOCK_PAIRS) memory.
    Fast while a part, 8 B / (max_distance // 2 + 1) bits, has some 20 bits.

    Raises ValueError if max_distance is not from 0 to 8 B - 1, num_fixed not from 0 to N, or B not a multiple of 8.
    """
    require_between("max_distance", max_distance, 0, 8 * hash_NB.shape[1] - 1)
    if hash_NB.shape[1] % 8:
        raise ValueError(f"a hash must have a multiple of 8 bytes, got {hash_NB.shape[1]}")

    def make(rows: Rows) -> Near:
        return Hamming(hash_NB[rows], max_distance, mirror_mask)

    return _leaders(hash_NB, has_hash_N, num_fixed, only_fixed, make)


def _leaders(values_NX: NDArray[np.float32] | NDArray[np.uint8], is_comparable_N: NDArray[np.bool_],
             num_fixed: int, only_fixed: bool, make: Callable[[Rows], Near]) -> Rows:  # fmt: skip
    require_between("num_fixed", num_fixed, 0, len(values_NX))
    rows = np.flatnonzero(is_comparable_N)
    split = int(np.searchsorted(rows, num_fixed))
    # Equal rows are grouped apart among fixed and other rows: one that equals a fixed row may have an earlier leader.
    equal = np.concatenate([_first_equal(values_NX[rows[:split]]), split + _first_equal(values_NX[rows[split:]])])
    base = np.flatnonzero(equal == np.arange(len(rows)))
    near, leader = make(rows[base]), np.arange(len(base))
    base_split = int(np.searchsorted(base, split))
    free = leader[base_split:].copy()
    # In growing parts: rows that the first ones lead are not compared with the others.
    begin, size = 0, FEW_ROWS
    while begin < base_split:
        free = _drop(near, free, np.arange(begin, min(begin + size, base_split)), leader)
        begin, size = begin + size, size * 8
    if not only_fixed:
        _settle(near, free, leader)
    leader_N = np.arange(len(values_NX))
    leader_N[rows[base]] = rows[base[leader]]
    # An equal row has the same neighbours as the first one. So it has its leader, or that row itself is the leader.
    leader_N[rows[split:]] = leader_N[rows[equal[split:]]]
    return leader_N


def _first_equal(values_NX: NDArray[np.float32] | NDArray[np.uint8]) -> Rows:
    """An earlier equal row of each row, usually the first, or the row itself."""
    num = len(values_NX)
    raw = np.ascontiguousarray(values_NX).view(np.uint8).reshape(num, values_NX.shape[1] * values_NX.itemsize)
    words = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 8))).view(np.uint64)
    factors = np.random.default_rng(0).integers(0, 2**64, words.shape[1], np.uint64) | np.uint64(1)
    digest_N = np.zeros(num, np.uint64)
    for column, factor in zip(words.T, factors, strict=True):
        digest_N = (digest_N ^ (column * factor)) * factors[0]
        digest_N ^= digest_N >> np.uint64(29)
    _, first, inverse = np.unique(digest_N, return_index=True, return_inverse=True)
    first_N = first[inverse]
    # Digests of different rows may be equal.
    return np.where((words == words[first_N]).all(axis=1), first_N, np.arange(num))


def _drop(near: Near, rows: Rows, kept: Rows, leader: Rows) -> Rows:
    """Set the leaders of `rows` among `kept`, which are all earlier. Returns the rows without one."""
    none = len(leader)
    first = np.full(none, none)
    for found, by in near.pairs(rows, kept):
        np.minimum.at(first, found, by)
    has_leader = first[rows] < none
    leader[rows[has_leader]] = first[rows[has_leader]]
    return rows[~has_leader]


def _settle(near: Near, rows: Rows, leader: Rows) -> None:
    """Set the leaders of rows that no earlier row leads."""
    if len(rows) > FEW_ROWS:
        left, right = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        _settle(near, left, leader)
        _settle(near, _drop(near, right, left[leader[left] == left], leader), leader)
        return
    near_RR = np.zeros((len(rows), len(rows)), np.bool_)
    near_RR[near.compare(rows, rows)] = True
    near_RR = np.tril(near_RR, -1)
    is_kept = np.ones(len(rows), np.bool_)
    for row in np.flatnonzero(near_RR.any(axis=1)):
        leads = near_RR[row] & is_kept
        if leads.any():
            is_kept[row] = False
            leader[rows[row]] = rows[leads.argmax()]
