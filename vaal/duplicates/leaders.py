"""Leaders: of items in order of priority, those that resemble none kept before; exactly, without comparing all pairs.

Item by item, in order: it is dropped if it is near a kept one, and the earliest of these leads it. Divide and conquer:
the first half settles, its kept rows drop what they lead of the second half, and the rest of that settles. So what
resembles many drops early, and time and memory stay bounded where all items are alike.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from vaal.duplicates.nearness import FEW_ROWS, Cosine, Hamming, Rows

Near = Cosine | Hamming


def cosine_leaders(latent_NZ: NDArray[np.float32], threshold: float, num_fixed: int) -> Rows:
    """The leader (N,) of each row, itself where it is kept. The first `num_fixed` are kept whatever they resemble.

    Rows are near whose cosine, in float64, is at least `threshold`, up to COSINE_ROUNDING, and those that are equal;
    a row of zeros is near none. O(N Z + BLOCK_PAIRS) memory; at most N^2 Z / 2 operations. Rows in one half are
    compared with those kept in the other only where cells around NUM_CELLS of them come within reach of one another.

    Raises:
        ValueError: threshold is not above 0 and at most 1, num_fixed is not from 0 to N, or a latent is not finite.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    num_bad = int((~np.isfinite(latent_NZ)).any(axis=1).sum())
    if num_bad:
        raise ValueError(f"{num_bad} of {len(latent_NZ)} latents are not finite")

    def make(rows: Rows) -> Near:
        return Cosine(latent_NZ[rows], threshold)

    return _leaders(latent_NZ, (latent_NZ != 0).any(axis=1), num_fixed, make)


def hamming_leaders(
    hash_NB: NDArray[np.uint8], has_hash_N: NDArray[np.bool_], max_distance: int, num_fixed: int,
    mirror_mask: NDArray[np.uint8],
) -> Rows:  # fmt: skip
    """The leader (N,) of each row, itself where it is kept. The first `num_fixed` are kept whatever they resemble.

    Rows are near that differ in at most `max_distance` bits, as they are or with the bits of `mirror_mask` (B,)
    flipped in one; a row without a hash is near none. Multi-index hashing (Norouzi, Punjani and Fleet 2012): of
    max_distance // 2 + 1 parts of a hash one differs in a bit at most. O(N B + BLOCK_PAIRS) memory. Fast while the
    parts have some 20 bits, 8 B / (max_distance // 2 + 1).

    Raises:
        ValueError: max_distance is not from 0 to 8 B - 1, B is not a multiple of 8, or num_fixed is not from 0 to N.
    """
    if not 0 <= max_distance < 8 * hash_NB.shape[1]:
        raise ValueError(f"max_distance must be from 0 to {8 * hash_NB.shape[1] - 1}, got {max_distance}")
    if hash_NB.shape[1] % 8:
        raise ValueError(f"a hash must have a multiple of 8 bytes, got {hash_NB.shape[1]}")

    def make(rows: Rows) -> Near:
        return Hamming(hash_NB[rows], max_distance, mirror_mask)

    return _leaders(hash_NB, has_hash_N, num_fixed, make)


def _leaders(values_NX: NDArray[np.float32] | NDArray[np.uint8], is_comparable_N: NDArray[np.bool_],
             num_fixed: int, make: Callable[[Rows], Near]) -> Rows:  # fmt: skip
    if not 0 <= num_fixed <= len(values_NX):
        raise ValueError(f"num_fixed must be from 0 to the {len(values_NX)} rows, got {num_fixed}")
    rows = np.flatnonzero(is_comparable_N)
    split = int(np.searchsorted(rows, num_fixed))
    # Fixed rows apart: one of them stands for its equals, but what they lead may be led by an earlier one.
    equal = np.concatenate([_first_equal(values_NX[rows[:split]]), split + _first_equal(values_NX[rows[split:]])])
    base = np.flatnonzero(equal == np.arange(len(rows)))
    near, leader = make(rows[base]), np.arange(len(base))
    base_split = int(np.searchsorted(base, split))
    free = leader[base_split:].copy()
    for fixed in _growing(base_split):
        free = _drop(near, free, fixed, leader)
    _settle(near, free, leader)
    leader_N = np.arange(len(values_NX))
    leader_N[rows[base]] = rows[base[leader]]
    # An equal row has the same neighbours as the first one, and so its leader, or that row itself.
    leader_N[rows[split:]] = leader_N[rows[equal[split:]]]
    return leader_N


def _first_equal(values_NX: NDArray[np.float32] | NDArray[np.uint8]) -> Rows:
    """An earlier row that is equal, mostly the first, else the row itself."""
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
    # Equal digests of different rows are left to the comparison.
    return np.where((words == words[first_N]).all(axis=1), first_N, np.arange(num))


def _growing(count: int) -> Iterator[Rows]:
    """Rows 0 to count - 1 in ever larger parts: what the first ones lead need not be compared with the others."""
    begin, size = 0, FEW_ROWS
    while begin < count:
        yield np.arange(begin, min(begin + size, count))
        begin, size = begin + size, size * 8


def _drop(near: Near, rows: Rows, kept: Rows, leader: Rows) -> Rows:
    """Note the leaders among `kept`, all earlier. Returns the rows that have none."""
    none = len(leader)
    first = np.full(none, none)
    for found, by in near.pairs(rows, kept):
        np.minimum.at(first, found, by)
    has_leader = first[rows] < none
    leader[rows[has_leader]] = first[rows[has_leader]]
    return rows[~has_leader]


def _settle(near: Near, rows: Rows, leader: Rows) -> None:
    """Note the leaders of rows that none before them leads."""
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
