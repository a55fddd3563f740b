"""Completing the labels: picks in proportion to what the labels lack of the pool, by calibrated logits and by clusters.

The discriminator's labelled-logit s is calibrated and balanced: exp(s) is how many times denser the labels are than the
pool at an item. With n_L labels and b more to come, w = max(0, 1 - rho exp(s)), rho = n_L / (n_L + b), is in proportion
to how much of the pool's density the labels lack there. *Weight completion* draws b items without replacement with
probabilities in proportion to w. *Cluster completion* takes the items nearest the centres of the b clusters that lack
most: by the sum of their items' w over the root of their number, which is the geometric mean of what is lacking for an
item and in all.

Where nothing is lacking, *uncertainty sampling* draws items with probabilities in proportion to 1 - margin, in turn
over the classes that the task learner predicts (power sampling, Kirsch et al. 2023, arXiv 2106.12059, exponent 1).

What is found in parts of the pool merges in any tree, and always to the same. Items are told apart by the number of
their file and their place in it; ties go to the first.

Shape suffixes: N items, C clusters, K items that are kept.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from vaal.diversity.gumbel import mixed, uniform

NEAREST = 3
"""Items of each cluster that are kept: the second and the third stand in for a duplicate."""
FINENESS = 2**20
"""Sums of weights are in whole units of 1 / FINENESS: exact up to 10**12 items."""
LEAST_CLUSTERS = 1.5
"""Clusters for each pick: with fewer, clusters would give items that their neighbours stand for already."""


def weight_of(logit_N: NDArray[np.float32], num_labelled: int, b: int) -> NDArray[np.float64]:
    """How much the labels lack an item, 0 to 1: w of the module's text. Without labels all are 1."""
    rho = num_labelled / max(1, num_labelled + b)
    weight_N: NDArray[np.float64] = np.maximum(0.0, 1 - rho * np.exp(np.minimum(logit_N.astype(np.float64), 700.0)))
    return weight_N


def keys_of(weight_N: NDArray[np.float64], draw_N: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The keys of items: the b lowest are a sample without replacement in proportion to the weights.

    -ln(u) / w, where u is uniform on (0, 1) by the item's draw (Efraimidis and Spirakis 2006, Information Processing
    Letters 97); infinite where w is 0.
    """
    with np.errstate(divide="ignore"):
        key_N: NDArray[np.float64] = -np.log(uniform(draw_N)) / weight_N
    return key_N


def draws_of(shard_number: int, offset_N: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """A random number of 64 bits for each item of a shard, from its byte offset: a hash, the same on every machine.

    Args:
        shard_number: a hash of the shard's name, 64 bits.
    """
    start = mixed(np.array([shard_number ^ (seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)], np.uint64))
    return mixed(mixed(offset_N.astype(np.uint64) + start) + start)


class Items(NamedTuple):
    """K items: a group, int64; a score, float64, the lowest first; a second score, float32, for ties; the number of
    the file, int64, and the place in it, int64."""

    group_K: NDArray[np.int64]
    score_K: NDArray[np.float64]
    second_K: NDArray[np.float32]
    file_K: NDArray[np.int64]
    at_K: NDArray[np.int64]

    def take(self, places: NDArray[np.intp]) -> "Items":
        return Items(*(column[places] for column in cast("Any", self)))


def no_items() -> Items:
    """None of them."""
    whole = np.empty(0, np.int64)
    return Items(whole, np.empty(0, np.float64), np.empty(0, np.float32), whole, whole)


def joined(parts: Sequence[Items]) -> Items:
    """All items of the parts."""
    return Items(*(np.concatenate(columns) for columns in cast("Any", zip(*parts, strict=True))))


def lowest(items: Items, size: int) -> Items:
    """The `size` lowest by (score, second, file, place), the lowest first, whatever their groups."""
    if 0 < size < len(items.score_K):
        cut = np.partition(items.score_K, size - 1)[size - 1]
        items = items.take(np.flatnonzero(items.score_K <= cut))
    order = np.lexsort((items.at_K, items.file_K, items.second_K, items.score_K))
    return items.take(order[:size])


def lowest_of_each(items: Items, size: int) -> Items:
    """The `size` lowest of each group, sorted by (group, score, second, file, place)."""
    order, turn_K = _turns(items)
    return items.take(order[turn_K < size])


def in_turn(items: Items, size: int) -> Items:
    """The first `size` where the groups take turns: in each, every group that is not empty yet gives its lowest left.

    Within a turn the lowest come first. The merge law holds: with more items, those before an item can only become
    more, so that what is not among the first of a part is not among the first of all.
    """
    order, turn_K = _turns(items)
    items = items.take(order)
    first = np.lexsort((items.at_K, items.file_K, items.second_K, items.score_K, turn_K))
    return items.take(first[:size])


def _turns(items: Items) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The order by (group, score, second, file, place), and the place of each item of it within its group."""
    order = np.lexsort((items.at_K, items.file_K, items.second_K, items.score_K, items.group_K))
    group_K = items.group_K[order]
    is_first = np.concatenate([[True], group_K[1:] != group_K[:-1]]) if len(order) else np.empty(0, np.bool_)
    begin_K = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    return order, np.arange(len(order)) - begin_K


def fixed_sums(cluster_N: NDArray[np.int32], weight_N: NDArray[np.float64], num_clusters: int) -> NDArray[np.int64]:
    """The sum of the weights of each cluster in units of 1 / FINENESS (C,), exact for up to 2**33 items at a time."""
    # A sum of whole numbers below 2**53 is exact in float64, in any order.
    return np.bincount(cluster_N, weights=np.rint(weight_N * FINENESS), minlength=num_clusters).astype(np.int64)


def mean_weights(sum_C: NDArray[np.int64], count_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean weight of each cluster; 0 where it has no items."""
    mean_C: NDArray[np.float64] = sum_C / FINENESS / np.maximum(1, count_C)
    return mean_C


def cluster_order(sum_C: NDArray[np.int64], count_C: NDArray[np.int64]) -> NDArray[np.intp]:
    """The numbers of the clusters that have items, those that lack most first: see the module's text; ties by number.

    The mean alone would take small clusters far away, and the sum alone those that are large.
    """
    lacking_C = mean_weights(sum_C, count_C) * np.sqrt(count_C)
    order = np.lexsort((-lacking_C, count_C == 0))
    return order[: int(np.count_nonzero(count_C))]


def by_clusters(nearest: Items, order: NDArray[np.intp]) -> Items:
    """Items of clusters in the order of consideration: cluster by cluster, the nearest first."""
    place_C = np.full(int(max(nearest.group_K.max(initial=-1), order.max(initial=-1))) + 1, -1)
    place_C[order] = np.arange(len(order))
    found = nearest.take(np.flatnonzero(place_C[nearest.group_K] >= 0))
    ordered = (found.at_K, found.file_K, found.second_K, found.score_K, place_C[found.group_K])
    return found.take(np.lexsort(ordered))
