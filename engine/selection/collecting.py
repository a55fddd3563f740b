"""What the first pass over the scores collects for the completion: how the clusters are labelled, and the first items
of each order that a batch may be chosen in. All of it merges in any tree.

An item is known by the number of its file and its place among the rows of it that can be picked, as a draw is.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.pool.identity import shard_number_of
from engine.selection.order import Ranking
from engine.selection.sources import Fates
from vaal.completion import (
    FINENESS,
    NEAREST,
    Items,
    draws_of,
    fixed_sums,
    in_turn,
    joined,
    keys_of,
    lowest,
    lowest_of_each,
    no_items,
    weight_of,
)
from vaal.deficit import Coverage


class Wish(NamedTuple):
    """What a pass is to find: the `num_lowest` of the ranking; the labels of `num_clusters` clusters, with the nearest
    items of each, and how much the labels lack it: by the logits, or without `has_logits` by its labels alone; the
    `num_keyed` lowest keys of the weights from `num_labelled` and `budget`; and the first `num_turned` by the keys of
    1 - margin, in turn over the predicted classes. `seed` draws the keys."""

    num_lowest: int
    num_clusters: int = 0
    num_keyed: int = 0
    num_turned: int = 0
    num_labelled: int = 0
    budget: int = 0
    seed: int = 0
    ranking: Ranking = Ranking()
    has_logits: bool = True

    @property
    def columns(self) -> list[str]:
        """The columns of the scores that it needs beside those of the ranking."""
        needs = (
            (self.num_clusters if self.has_logits else 0, ("logit",)),
            (self.num_clusters, ("cluster", "distance")),
            (self.num_keyed, ("logit", "offset")),
            (self.num_turned, ("offset", "margin", "predicted")),
        )
        return list(dict.fromkeys(name for size, names in needs if size for name in names))


class Collected(NamedTuple):
    """How the clusters are labelled, and how many labels each has; of what can be picked in each the exact sum of the
    weights, as `vaal.completion.fixed_sums` has it, and the number (C,) int64; and items by `Wish`."""

    coverage: Coverage
    labelled_C: NDArray[np.int64]
    sum_C: NDArray[np.int64]
    count_C: NDArray[np.int64]
    nearest: Items
    keyed: Items
    turned: Items


class _Kept:
    """The first items of pieces that are added one by one, by a law that merges."""

    def __init__(self, size: int, most: int, reduce: Callable[[Items, int], Items]) -> None:
        self._size, self._most, self._reduce = size, most, reduce
        self._pieces, self._num_held = [no_items()], 0
        self.on_reduced: Callable[[Items], None] = lambda _: None

    def add(self, piece: Items) -> None:
        self._pieces.append(piece)
        self._num_held += len(piece.at_K)
        # Reducing at twice the size keeps the total time linear.
        if self._num_held > 2 * self._most:
            self._pieces = [self.result()]
            self._num_held = len(self._pieces[0].at_K)
            self.on_reduced(self._pieces[0])

    def result(self) -> Items:
        return self._reduce(joined(self._pieces), self._size)


class Collector:
    """Collects by a wish. Items that cannot be among the first of what was added so far are left out of pieces."""

    def __init__(self, wish: Wish) -> None:
        self.wish, num_clusters = wish, wish.num_clusters
        zero = np.zeros(num_clusters, np.int64)
        self._coverage, self._labelled_C, self._sum_C, self._count_C = Coverage(zero, zero, zero), zero, zero, zero
        self._nearest = _Kept(NEAREST, NEAREST * num_clusters, lowest_of_each)
        self._keyed = _Kept(wish.num_keyed, wish.num_keyed, lowest)
        self._turned = _Kept(wish.num_turned, wish.num_turned, in_turn)
        self._far_C, self._high, self._unsure = np.full(num_clusters, np.inf), np.inf, np.empty(0)
        self._nearest.on_reduced, self._keyed.on_reduced = self._cut_nearest, self._cut_keyed
        self._turned.on_reduced = self._cut_turned

    def add(self, found: Collected, first_file: int) -> None:
        """Add what a part found, whose files are numbered from `first_file` on."""
        self._coverage = Coverage(*(a + b for a, b in zip(self._coverage, found.coverage, strict=True)))
        self._labelled_C = self._labelled_C + found.labelled_C
        self._sum_C, self._count_C = self._sum_C + found.sum_C, self._count_C + found.count_C
        pairs = (self._nearest, found.nearest), (self._keyed, found.keyed), (self._turned, found.turned)
        for kept, items in pairs:
            kept.add(items._replace(file_K=items.file_K + first_file))

    def result(self) -> Collected:
        """All that was added."""
        items = (self._nearest.result(), self._keyed.result(), self._turned.result())
        return Collected(self._coverage, self._labelled_C, self._sum_C, self._count_C, *items)

    def look(self, shard: str, table: pa.Table, fates: Fates, begin: int) -> Collected:
        """What rows of a file hold, as file 0. `begin` of its rows before these can be picked."""
        wish, is_free = self.wish, fates.is_free
        column = {name: table[name].to_numpy() for name in wish.columns}
        free = {name: values if is_free.all() else values[is_free] for name, values in column.items()}
        at_N = np.arange(begin, begin + np.count_nonzero(is_free))
        zero = np.zeros(wish.num_clusters, np.int64)
        coverage, labelled_C, sum_C, count_C, nearest = Coverage(zero, zero, zero), zero, zero, zero, no_items()
        if (wish.num_clusters and wish.has_logits) or wish.num_keyed:
            weight_N = weight_of(free["logit"], wish.num_labelled, wish.budget)
        if wish.num_keyed or wish.num_turned:
            draw_N = draws_of(shard_number_of(shard), free["offset"], wish.seed)
        if wish.num_clusters:
            coverage, labelled_C, count_C = _coverage(column["cluster"], fates, wish.num_clusters)
            sum_C = fixed_sums(free["cluster"], weight_N, wish.num_clusters) if wish.has_logits else zero
            near_N = np.flatnonzero(free["distance"] <= self._far_C[free["cluster"]])
            nearest = lowest_of_each(_items(free["distance"], at_N, near_N, free["cluster"]), NEAREST)
        keyed, turned = no_items(), no_items()
        if wish.num_keyed:
            key_N = keys_of(weight_N, draw_N)
            keyed = _items(key_N, at_N, np.flatnonzero(key_N <= self._high), second_N=free["logit"])
        if wish.num_turned:
            sure_N = np.append(self._unsure, np.inf)[np.minimum(free["predicted"], len(self._unsure))]
            key_N = keys_of(1 - free["margin"].astype(np.float64), draw_N)
            low_N = np.flatnonzero(key_N <= sure_N)
            turned = _items(key_N, at_N, low_N, free["predicted"])
        return Collected(coverage, labelled_C, sum_C, count_C, nearest, keyed, turned)

    def _cut_nearest(self, items: Items) -> None:
        far_C = np.full(self.wish.num_clusters, np.inf)
        is_last = np.bincount(items.group_K, minlength=len(far_C))[items.group_K] == NEAREST
        # Sorted by cluster and distance: the last of three is the farthest.
        third = np.flatnonzero(is_last)[NEAREST - 1 :: NEAREST]
        far_C[items.group_K[third]] = items.score_K[third]
        self._far_C = far_C

    def _cut_keyed(self, items: Items) -> None:
        if len(items.at_K) == self.wish.num_keyed:
            self._high = items.score_K[-1]

    def _cut_turned(self, items: Items) -> None:
        """The highest key of each class with which an item may still be among the first."""
        if len(items.at_K) < self.wish.num_turned:
            return
        count = np.bincount(items.group_K)
        highest = np.full(len(count), -np.inf)
        np.maximum.at(highest, items.group_K, items.score_K)
        last = items.score_K[-1]
        # A class without an item in the last turn may get one there, or had one that is above the last.
        one_less = np.where(count == count.max() - 1, np.maximum(highest, last), np.inf)
        self._unsure = np.where(count == count.max(), highest, one_less)


def _coverage(
    cluster_N: NDArray[np.int32], fates: Fates, num_clusters: int
) -> tuple[Coverage, NDArray[np.int64], NDArray[np.int64]]:
    """How the clusters are labelled; how many labels each has; and how many items of each can be picked."""
    is_drawn_N = fates.is_labelled_N & ~fates.is_uncertain_N
    rows = (fates.is_free, is_drawn_N, fates.is_taken_N & ~is_drawn_N, fates.is_labelled_N)
    free, drawn, filled, labelled = (np.bincount(cluster_N[part], minlength=num_clusters) for part in rows)
    return Coverage(free, drawn, filled), labelled, free


def _items(
    score_N: NDArray[Any], at_N: NDArray[np.int64], rows: NDArray[np.intp], group_N: NDArray[Any] | None = None,
    second_N: NDArray[np.float32] | None = None,
) -> Items:  # fmt: skip
    none = np.zeros(len(rows), np.int64)
    group_K = none if group_N is None else group_N[rows].astype(np.int64)
    second_K = none.astype(np.float32) if second_N is None else second_N[rows]
    return Items(group_K, score_N[rows].astype(np.float64), second_K, none, at_N[rows])


def weighed_by_labels(found: Collected, wish: Wish) -> Collected:
    """All that a pass found, with the sums of weights that no logits gave: every item of a cluster has the logit that
    the labels of the cluster suggest, the logarithm of how many times denser they are there than what can be picked."""
    labelled_C, free_C = found.labelled_C, found.count_C
    with np.errstate(divide="ignore", invalid="ignore"):
        logit_C = np.log(labelled_C / labelled_C.sum()) - np.log(free_C / free_C.sum())
    # A cluster without both weighs as much as any, and has nothing to pick.
    weight_C = weight_of(np.where(np.isnan(logit_C), 0, logit_C).astype(np.float32), wish.num_labelled, wish.budget)
    return found._replace(sum_C=np.rint(weight_C * FINENESS).astype(np.int64) * free_C)


def merged(parts: Sequence[Collected], wish: Wish) -> Collected:
    """Parts of one file as one."""
    collector = Collector(wish)
    for part in parts:
        collector.add(part, 0)
    return collector.result()
