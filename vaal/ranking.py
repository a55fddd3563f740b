"""Exact top-b: one total order on scored items, and the law that lets partial results be merged."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scored(NamedTuple):
    """N items by their score and identity: score (N,) float32, or `joint_order` uint64; shard (N,) and key (N,), arrays
    of str or of objects."""

    score_N: NDArray[Any]
    shard_N: NDArray[Any]
    key_N: NDArray[Any]


def joint_order(score_N: NDArray[np.float32], second_N: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Numbers (N,) uint64 in the order of (score, second score): one comparison in place of two.

    Neither may be NaN. 0 and -0 are equal.
    """
    first_N, last_N = (_ordered(values).astype(np.uint64) for values in (score_N, second_N))
    return (first_N << np.uint64(32)) | last_N


def _ordered(values_N: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Whole numbers in the order of floats: of a negative one all bits are inverted, of others the sign alone."""
    bits_N = (np.ascontiguousarray(values_N, np.float32) + np.float32(0)).view(np.uint32)
    sign = np.uint32(1 << 31)
    return np.where(bits_N & sign, ~bits_N, bits_N | sign)


def top_b(items: Scored, b: int) -> NDArray[np.intp]:
    """Indices of the b lowest items by (score, shard, key), lowest first; all of them when there are fewer than b.

    Strings compare by code point. Results can be merged: the top b of a union of parts is the top b of the union of
    their top b's, in any order and any tree. O(N + b log b) time if few scores are equal: names are compared among
    equal scores only.

    Raises ValueError if b < 0, or a score is NaN.
    """
    if b < 0:
        raise ValueError(f"b must be at least 0, got {b}")
    if np.isnan(items.score_N).any():
        bad = np.flatnonzero(np.isnan(items.score_N))
        names = [f"{items.shard_N[i]}/{items.key_N[i]}" for i in bad[:3]]
        raise ValueError(f"{len(bad)} of {len(items.score_N)} scores are NaN, first {names}")
    candidates_N = np.arange(len(items.score_N))
    if 0 < b < len(candidates_N):
        # Keep all ties with the b-th score, so that names decide and not the partition.
        cut = np.partition(items.score_N, b - 1)[b - 1]
        candidates_N = np.flatnonzero(items.score_N <= cut)
    order_N = candidates_N[np.argsort(items.score_N[candidates_N])]
    score_N = items.score_N[order_N]
    is_equal = score_N[1:] == score_N[:-1]
    # Items with equal scores are adjacent now, and are sorted by name among themselves.
    tied = np.flatnonzero(np.append(is_equal, False) | np.insert(is_equal, 0, False))
    among = order_N[tied]
    order_N[tied] = among[np.lexsort((items.key_N[among], items.shard_N[among], items.score_N[among]))]
    return order_N[:b]


def first(b: int) -> NDArray[np.intp]:
    """The indices (b,) of the first b items."""
    return np.arange(b)
