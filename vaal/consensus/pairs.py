"""What the methods of consensus share: votes in one order, the classes that an item was voted to be of, the best."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_between
from vaal.consensus import Consensus, Votes

TIE = 1e-9
"""Probabilities that differ by less are equal: sums in another order differ by 1e-15."""
RIGHT, WRONG = 9.0, 1.0
"""Pseudo-counts: what is assumed of an annotator before the first vote is an accuracy of 0.9, as if 9 of 10 votes had
been right. High enough that a single vote is the label, low enough that two that agree say more. With 10 votes it is
half of the estimate: so an annotator whose first five votes are right has 0.93 and not 1, and one with hundreds of
votes is judged by these."""
ITEMS = 10.0
"""Pseudo-count of items, even over the classes, in the frequencies of classes: few items say little of these. Without
it three items are enough for the commonest class to win a third that has one vote for each of three classes."""
EVENNESS = 1.0
"""How much an even frequency of classes counts beside the estimated one, when items are judged. With 1 a class has at
least half its even share. So the only vote on an item, by an annotator with an accuracy above 0.75, is never overruled
because its class is rare: active learning asks for rare classes."""
TOLERANCE = 1e-6
MAX_ITERATIONS = 300
"""EM ends when no accuracy, rate or frequency changes by more than TOLERANCE, or after so many iterations: the estimate
is then the last one, which is at least as likely as all before it."""


class Tally(NamedTuple):
    """Votes sorted by item, class and annotator; pairs in the same order; the pair of each vote."""

    item_V: NDArray[np.int64]
    annotator_V: NDArray[np.int64]
    class_V: NDArray[np.int64]
    pair_V: NDArray[np.int64]
    item_P: NDArray[np.int64]
    class_P: NDArray[np.int64]
    share_P: NDArray[np.float64]
    """The share of its item's votes that a pair has; of an item whose class is known 1 or 0."""
    truth_N: NDArray[np.int64]
    is_open_N: NDArray[np.bool_]
    """Whether an item has votes and its class is not known."""
    num_annotators: int
    num_classes: int


def tally_of(votes: Votes) -> Tally:
    """The votes in an order that does not depend on theirs. O(V log V + N).

    Raises ValueError if the arrays' lengths differ, a number is out of its range, or there is no class.
    """
    _require_valid(votes)
    num_items, num_classes = len(votes.truth_N), votes.num_classes
    order = np.lexsort((votes.annotator_V, votes.class_V, votes.item_V))
    item_V, annotator_V, class_V = (values[order] for values in votes[:3])
    is_new_V = np.ones(len(item_V), np.bool_)
    is_new_V[1:] = (item_V[1:] != item_V[:-1]) | (class_V[1:] != class_V[:-1])
    pair_V, item_P, class_P = np.cumsum(is_new_V) - 1, item_V[is_new_V], class_V[is_new_V]
    num_N = np.bincount(item_V, minlength=num_items)
    truth_P = votes.truth_N[item_P]
    share_P = np.where(truth_P < 0, np.bincount(pair_V, minlength=len(item_P)) / num_N[item_P], class_P == truth_P)
    is_open_N = (num_N > 0) & (votes.truth_N < 0)
    return Tally(
        item_V, annotator_V, class_V, pair_V, item_P, class_P, share_P, votes.truth_N, is_open_N, votes.num_annotators,
        num_classes,
    )  # fmt: skip


def _require_valid(votes: Votes) -> None:
    require_between("the number of classes", votes.num_classes, 1, 2**31)
    num_items, num_votes = len(votes.truth_N), len(votes.item_V)
    _require("item", votes.item_V, 0, num_items, num_votes)
    _require("annotator", votes.annotator_V, 0, votes.num_annotators, num_votes)
    _require("class", votes.class_V, 0, votes.num_classes, num_votes)
    _require("known class", votes.truth_N, -1, votes.num_classes, num_items)


def _require(name: str, values: NDArray[np.int64], low: int, end: int, length: int) -> None:
    if len(values) != length:
        raise ValueError(f"there are {len(values)} numbers of {name} for {length} votes")
    if length:
        require_between(f"a number of {name}", int(values.min()), low, end - 1)
        require_between(f"a number of {name}", int(values.max()), low, end - 1)


def informative(votes: Votes) -> Votes:
    """The votes that say how good annotators are: those on items of at least two annotators, or of known class.

    A single vote says nothing of that: any accuracy explains it, with some frequency of classes. Nor does an
    annotator's agreement with an own vote. Raises ValueError as tally_of does.
    """
    _require_valid(votes)
    some_N = np.zeros(len(votes.truth_N), np.int64)
    some_N[votes.item_V] = votes.annotator_V
    is_other_V = votes.annotator_V != some_N[votes.item_V]
    tells_N = (votes.truth_N >= 0) | (np.bincount(votes.item_V, is_other_V, len(votes.truth_N)) > 0)
    of_V = tells_N[votes.item_V]
    return votes._replace(item_V=votes.item_V[of_V], annotator_V=votes.annotator_V[of_V], class_V=votes.class_V[of_V])


def frequencies(num_C: NDArray[np.float64], items: float) -> NDArray[np.float64]:
    """The frequencies of classes (C,), by the expected number of items of each and the pseudo-count of items."""
    total = num_C.sum() + items
    return (num_C + items / len(num_C)) / total if total else np.full(len(num_C), 1 / len(num_C))


def evened(prior_C: NDArray[np.float64], evenness: float) -> NDArray[np.float64]:
    """The frequencies of classes by which items are judged: see EVENNESS."""
    return (prior_C + evenness / len(prior_C)) / (1 + evenness)


def best_of(tally: Tally, probability_P: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of the classes that an item (N,) was voted to be of the most probable, and its probability; -1 and 0 without."""
    class_N, most_N = np.full(len(tally.truth_N), -1), np.zeros(len(tally.truth_N))
    np.maximum.at(most_N, tally.item_P, probability_P)
    tied = np.flatnonzero(probability_P > most_N[tally.item_P] - TIE)[::-1]
    # The last assignment to an item is that of its lowest class.
    class_N[tally.item_P[tied]] = tally.class_P[tied]
    return class_N, most_N


def concluded(tally: Tally, class_N: NDArray[np.int64], probability_N: NDArray[np.float64],
              accuracy_A: NDArray[np.float64]) -> Consensus:  # fmt: skip
    """The consensus, where known classes are known, and nothing is said of what has no votes."""
    is_known_N = tally.truth_N >= 0
    has_votes_A = np.bincount(tally.annotator_V, minlength=tally.num_annotators) > 0
    probability_N = np.where(tally.is_open_N, np.minimum(probability_N, 1), np.where(is_known_N, 1, np.nan))
    class_N = np.where(tally.is_open_N, class_N, tally.truth_N)
    return Consensus(class_N, probability_N, np.where(has_votes_A, accuracy_A, np.nan))
