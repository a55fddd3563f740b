"""One coin: every annotator is right with a certain probability, and wrong classes are equally likely.

The model of Dawid and Skene (1979) with one rate for each annotator (Zhang, Chen, Zhou and Jordan 2014, "one-coin";
Snow et al. 2008 weigh votes likewise), by EM in the log domain.
"""

import numpy as np
from numpy.typing import NDArray

from vaal.consensus import Consensus, Votes
from vaal.consensus.pairs import (
    EVENNESS,
    ITEMS,
    MAX_ITERATIONS,
    RIGHT,
    TIE,
    TOLERANCE,
    WRONG,
    Tally,
    best_of,
    concluded,
    evened,
    frequencies,
    informative,
    tally_of,
)

Floats = NDArray[np.float64]
SMALLEST = 1e-10
"""Accuracies keep so far from 0 and 1, and frequencies from 0, where there are no pseudo-counts to do it."""


def one_coin(
    votes: Votes, *, right: float = RIGHT, wrong: float = WRONG, items: float = ITEMS, evenness: float = EVENNESS
) -> Consensus:
    """The most probable class by the votes, weighed by the accuracies of annotators.

    Accuracies and frequencies of classes are estimated together (maximum a posteriori, from the shares of votes on)
    from items with votes of at least two annotators; accuracies also from items of known class, whose class is a fact
    and not an estimate. All items are then judged by them, with the frequencies made half even (EVENNESS). So where all
    items have one vote and none is known, labels are the votes, with probability right / (right + wrong), which is also
    the accuracy of all. A single vote has about the probability that its annotator is right.

    The posterior is exactly that of the model, also over classes that an item has no vote for: these are in proportion
    to their frequencies. So the class may be one without a vote, where annotators are worse than chance. O(V + N + C)
    memory, and time for each iteration; never N times C.
    """
    accuracy_A, prior_C = estimate(tally_of(informative(votes)), right, wrong, items)
    tally, prior_C = tally_of(votes), evened(prior_C, evenness)
    probability_P, unit_N = posterior(tally, accuracy_A, prior_C)
    class_N, probability_N = best_of(tally, probability_P)
    doubtful = np.flatnonzero(tally.is_open_N & (unit_N * prior_C.max() > probability_N + TIE))
    unvoted = _likeliest_unvoted(tally, doubtful, prior_C)
    chance = np.where(unvoted < 0, 0, unit_N[doubtful] * prior_C[unvoted])
    is_likelier = chance > probability_N[doubtful] + TIE
    class_N[doubtful[is_likelier]] = unvoted[is_likelier]
    probability_N[doubtful[is_likelier]] = chance[is_likelier]
    return concluded(tally, class_N, probability_N, accuracy_A)


def estimate(tally: Tally, right: float, wrong: float, items: float) -> tuple[Floats, Floats]:
    """The accuracy of each annotator (A,) and the frequency of each class (C,), by EM.

    Each iteration makes them at least as likely as before. Pseudo-counts as in vaal.consensus.pairs.
    """
    num_classes, annotator_V = tally.num_classes, tally.annotator_V
    num_A = np.bincount(annotator_V, minlength=tally.num_annotators)
    is_open_P = tally.is_open_N[tally.item_P]
    prior_C = np.full(num_classes, 1 / num_classes)
    accuracy_A, probability_P, unit_N = np.zeros(len(num_A)), tally.share_P, np.zeros(len(tally.truth_N))
    for _ in range(MAX_ITERATIONS):
        before = accuracy_A, prior_C
        right_A = np.bincount(annotator_V, probability_P[tally.pair_V], len(num_A))
        accuracy_A = np.clip((right + right_A) / (right + wrong + num_A), SMALLEST, 1 - SMALLEST)
        voted_C = np.bincount(tally.class_P, probability_P * is_open_P, num_classes)
        # An item gives each class that it has no vote for prior_C times unit_N.
        unit_C = unit_N.sum() - np.bincount(tally.class_P, unit_N[tally.item_P], num_classes)
        prior_C = frequencies(voted_C + prior_C * np.maximum(unit_C, 0), items)
        if max(np.abs(accuracy_A - before[0]).max(initial=0), np.abs(prior_C - before[1]).max(initial=0)) < TOLERANCE:
            break
        probability_P, unit_N = posterior(tally, accuracy_A, prior_C)
    return accuracy_A, prior_C


def posterior(tally: Tally, accuracy_A: Floats, prior_C: Floats) -> tuple[Floats, Floats]:
    """The probability of each pair (P,), and by what (N,) to multiply the frequency of a class without a vote.

    That is 0 for an item whose class is known, or that has no votes.
    """
    num_items = len(tally.truth_N)
    odds_A = np.log(accuracy_A) - np.log1p(-accuracy_A) + np.log(max(tally.num_classes - 1, 1))
    prior_P = prior_C[tally.class_P]
    log_P = np.log(np.maximum(prior_P, SMALLEST)) + np.bincount(
        tally.pair_V, odds_A[tally.annotator_V], len(tally.item_P)
    )
    most_N = np.zeros(num_items)
    np.maximum.at(most_N, tally.item_P, log_P)
    weight_P, unit_N = np.exp(log_P - most_N[tally.item_P]), np.exp(-most_N)
    unvoted_N = np.maximum(1 - np.bincount(tally.item_P, prior_P, num_items), 0)
    sum_N = np.bincount(tally.item_P, weight_P, num_items) + unvoted_N * unit_N
    is_open_P = tally.is_open_N[tally.item_P]
    probability_P = np.where(is_open_P, weight_P / sum_N[tally.item_P], tally.share_P)
    return probability_P, np.where(tally.is_open_N, unit_N / sum_N, 0)


def _likeliest_unvoted(tally: Tally, items: NDArray[np.int64], prior_C: Floats) -> NDArray[np.int64]:
    """The most frequent class that each of some items has no vote for; -1 where it has votes for all."""
    found, left = np.full(len(items), -1), np.arange(len(items))
    key_P = tally.item_P * tally.num_classes + tally.class_P
    for wanted in np.argsort(-prior_C, kind="stable"):
        if not len(left):
            break
        key = items[left] * tally.num_classes + wanted
        is_voted = key_P[np.minimum(np.searchsorted(key_P, key), len(key_P) - 1)] == key
        found[left[~is_voted]] = wanted
        left = left[is_voted]
    return found
