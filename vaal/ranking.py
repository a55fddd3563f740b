"""Exact top-b: one total order on scored items, and the law that lets partial results be merged."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scored(NamedTuple):
    """N items by their score and identity: logit (N,) float32, shard (N,) str, key (N,) str."""

    logit_N: NDArray[np.float32]
    shard_N: NDArray[np.str_]
    key_N: NDArray[np.str_]


def top_b(items: Scored, b: int) -> NDArray[np.intp]:
    """Indices of the b lowest items by (logit, shard, key), lowest first; all of them when there are fewer than b.

    Strings compare by code point. Merging partial results changes nothing: the top b of a union of parts is the
    top b of the union of their top b's, so parts may be reduced in any order and any tree.

    Raises:
        ValueError: b < 1, or a logit is NaN.
    """
    if b < 1:
        raise ValueError(f"b must be at least 1, got {b}")
    if np.isnan(items.logit_N).any():
        bad = np.flatnonzero(np.isnan(items.logit_N))
        names = [f"{items.shard_N[i]}/{items.key_N[i]}" for i in bad[:3]]
        raise ValueError(f"{len(bad)} of {len(items.logit_N)} logits are NaN, first {names}")
    candidates_N = np.arange(len(items.logit_N))
    if len(candidates_N) > b:
        # Keep every tie with the b-th logit, so that names decide between them and not the partition.
        cut = np.partition(items.logit_N, b - 1)[b - 1]
        candidates_N = np.flatnonzero(items.logit_N <= cut)
    order = np.lexsort((items.key_N[candidates_N], items.shard_N[candidates_N], items.logit_N[candidates_N]))
    return candidates_N[order][:b]
