"""How far annotators agree with one another, and with the classes that are known."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaal.consensus import Votes
from vaal.consensus.pairs import tally_of

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: of intervals of 95 %."""


class Agreement(NamedTuple):
    """Krippendorff's alpha, and of each class (C,) the share of pairs of votes that agree; nan where not defined."""

    alpha: float
    agreement_C: NDArray[np.float64]


class GoldAccuracy(NamedTuple):
    """Of each annotator (A,) the votes on items of known class, the share that is right, and its interval of 95 %."""

    num_A: NDArray[np.int64]
    accuracy_A: NDArray[np.float64]
    low_A: NDArray[np.float64]
    high_A: NDArray[np.float64]


def agreement(votes: Votes) -> Agreement:
    """Alpha for nominal data with missing votes (Krippendorff 2011, "Computing Krippendorff's alpha-reliability").

    1 is perfect agreement, 0 that of votes dealt at random; below 0 annotators contradict one another. Items with one
    vote do not count. Not defined (nan) where no item has two votes, or all votes that count are for one class.
    The agreement of a class: of the pairs of votes on one item of which either is for it, the share of which both are;
    nan where there is no such pair. Two votes of one annotator are a pair too. O(V log V + N + C).
    """
    tally = tally_of(votes)
    num_P = np.bincount(tally.pair_V, minlength=len(tally.item_P)).astype(np.float64)
    num_N = np.bincount(tally.item_V, minlength=len(votes.truth_N)).astype(np.float64)
    others_P = num_N[tally.item_P] - num_P
    pairs_C = np.bincount(tally.class_P, num_P * (num_P - 1) / 2 + num_P * others_P, votes.num_classes)
    agreeing_C = np.bincount(tally.class_P, num_P * (num_P - 1) / 2, votes.num_classes)
    agreement_C = np.divide(agreeing_C, pairs_C, out=np.full(votes.num_classes, np.nan), where=pairs_C > 0)
    num_C = np.bincount(tally.class_P, num_P * (num_N[tally.item_P] > 1), votes.num_classes)
    total = num_C.sum()
    # Ordered pairs of different classes: seen on the items, each item by its votes less one; and among all votes.
    seen = (num_P * others_P / np.maximum(num_N[tally.item_P] - 1, 1)).sum()
    expected = total**2 - (num_C**2).sum()
    return Agreement(float(1 - (total - 1) * seen / expected) if expected else float("nan"), agreement_C)


def gold_accuracy(votes: Votes) -> GoldAccuracy:
    """How many votes of each annotator on items of known class are right, with Wilson's interval (1927). O(V + A).

    Without such votes the share is nan, and the interval is [0, 1].
    """
    tally = tally_of(votes)
    is_known_V = votes.truth_N[tally.item_V] >= 0
    annotator_V = tally.annotator_V[is_known_V]
    num_A = np.bincount(annotator_V, minlength=votes.num_annotators)
    right_A = np.bincount(annotator_V, tally.share_P[tally.pair_V][is_known_V], votes.num_annotators)
    most_A = np.maximum(num_A, 1)
    share_A = right_A / most_A
    middle_A = (share_A + Z_95**2 / (2 * most_A)) / (1 + Z_95**2 / most_A)
    half_A = Z_95 * np.sqrt(share_A * (1 - share_A) / most_A + Z_95**2 / (4 * most_A**2)) / (1 + Z_95**2 / most_A)
    # A bound that is 0 or 1 exactly is not to miss it by rounding.
    low_A = np.where((num_A == 0) | (right_A == 0), 0, middle_A - half_A)
    high_A = np.where((num_A == 0) | (right_A == num_A), 1, middle_A + half_A)
    return GoldAccuracy(num_A, np.where(num_A > 0, share_A, np.nan), low_A, high_A)
