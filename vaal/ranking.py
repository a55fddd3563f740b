"""Exact top-b: one total order on scored items, and the law that lets partial results be merged."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scored(NamedTuple):
    """N items by their score and identity: logit (N,) float32; shard (N,) and key (N,), arrays of str or of objects."""

    logit_N: NDArray[np.float32]
    shard_N: NDArray[Any]
    key_N: NDArray[Any]


def top_b(items: Scored, b: int) -> NDArray[np.intp]:
    """Indices of the b lowest items by (logit, shard, key), lowest first; all of them when there are fewer than b.

    Strings compare by code point. Results can be merged: the top b of a union of parts is the top b of the union of
    their top b's, in any order and any tree. O(N + b log b) time if few logits are equal: names are compared among
    equal logits only.

    Raises ValueError if b < 0, or a logit is NaN.
    """
    if b < 0:
        raise ValueError(f"b must be at least 0, got {b}")
    if np.isnan(items.logit_N).any():
        bad = np.flatnonzero(np.isnan(items.logit_N))
        names = [f"{items.shard_N[i]}/{items.key_N[i]}" for i in bad[:3]]
        raise ValueError(f"{len(bad)} of {len(items.logit_N)} logits are NaN, first {names}")
    candidates_N = np.arange(len(items.logit_N))
    if 0 < b < len(candidates_N):
        # Keep all ties with the b-th logit, so that names decide and not the partition.
        cut = np.partition(items.logit_N, b - 1)[b - 1]
        candidates_N = np.flatnonzero(items.logit_N <= cut)
    order_N = candidates_N[np.argsort(items.logit_N[candidates_N])]
    logit_N = items.logit_N[order_N]
    is_equal = logit_N[1:] == logit_N[:-1]
    # Items with equal logits are adjacent now, and are sorted by name among themselves.
    tied = np.flatnonzero(np.append(is_equal, False) | np.insert(is_equal, 0, False))
    among = order_N[tied]
    order_N[tied] = among[np.lexsort((items.key_N[among], items.shard_N[among], items.logit_N[among]))]
    return order_N[:b]


def first(b: int) -> NDArray[np.intp]:
    """The indices (b,) of the first b items."""
    return np.arange(b)
