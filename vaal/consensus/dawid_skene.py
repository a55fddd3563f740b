"""Dawid and Skene (1979, Applied Statistics 28): every annotator takes each class for each other at a certain rate."""

from collections.abc import Iterator
from typing import NamedTuple

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
    concluded,
    evened,
    frequencies,
    informative,
    tally_of,
)

Floats = NDArray[np.float64]
MAX_RATES = 100_000_000
"""More error rates take 0.8 GB an array, and no number of votes that people can give estimates them."""
BLOCK_FLOATS = 2**22
SMALLEST = 1e-10
"""Rates and frequencies are not below, where there are no pseudo-counts to do it."""


class Rates(NamedTuple):
    """The frequency of each class, and how often, of an item of a class (first), an annotator says a class (last)."""

    prior_C: Floats
    rate_CAC: Floats

    def change(self, before: "Rates") -> float:
        """By how much a frequency or rate differs at most."""
        prior = np.abs(self.prior_C - before.prior_C).max()
        pairs = zip(self.rate_CAC, before.rate_CAC, strict=True)
        return float(max(prior, *(np.abs(new_AC - old_AC).max(initial=0) for new_AC, old_AC in pairs)))


class _Block(NamedTuple):
    """Some items in a row and their votes: the item (from 0), and annotator times C plus class, of each vote."""

    items: slice
    pairs: slice
    item_V: NDArray[np.int64]
    key_V: NDArray[np.int64]


def dawid_skene(
    votes: Votes, *, right: float = RIGHT, wrong: float = WRONG, items: float = ITEMS, evenness: float = EVENNESS
) -> Consensus:
    """The most probable class by the votes and the error rates of annotators.

    For annotators with many votes on every class; with fewer `one_coin` is better. Rates are estimated from the same
    items, and frequencies likewise, as there; the pseudo-counts hold for each annotator and class, `wrong` spread
    evenly over the other classes. So single votes without known classes have probability right / (right + wrong) here
    too. The accuracy of an annotator is that on an item of a class drawn by frequency.

    The posterior is exactly that of the model, over all classes. O(V C) time for each iteration; O(V + N + A C^2)
    memory, never N times C. Raises ValueError if there are more than MAX_RATES error rates.
    """
    rates, tally = estimate(votes, right=right, wrong=wrong, items=items), tally_of(votes)
    judging = rates._replace(prior_C=evened(rates.prior_C, evenness))
    class_N, probability_N = np.full(len(tally.truth_N), -1), np.zeros(len(tally.truth_N))
    for block in _blocks(tally):
        probability_CB = _posterior(tally, block, judging)
        probability_N[block.items] = most_B = probability_CB.max(axis=0)
        class_N[block.items] = (probability_CB > most_B - TIE).argmax(axis=0)
    return concluded(tally, class_N, probability_N, np.einsum("c,cac->a", *rates))


def estimate(votes: Votes, *, right: float = RIGHT, wrong: float = WRONG, items: float = ITEMS) -> Rates:
    """The error rates of annotators and the frequencies of classes, by EM from the shares of votes on.

    Each iteration makes them at least as likely as before. Raises ValueError if there are more than MAX_RATES rates.
    """
    num_annotators, num_classes = votes.num_annotators, votes.num_classes
    if num_annotators * num_classes**2 > MAX_RATES:
        raise ValueError(
            f"{num_annotators} annotators and {num_classes} classes have {num_annotators * num_classes**2:,} error "
            f"rates, more than {MAX_RATES:,}; take one_coin, which has one for each annotator"
        )
    tally = tally_of(informative(votes))
    blocks = list(_blocks(tally))
    pseudo_CC = np.full((num_classes, num_classes), wrong / max(num_classes - 1, 1))
    np.fill_diagonal(pseudo_CC, right)
    rates = None
    for _ in range(MAX_ITERATIONS):
        rate_CAC, num_C = np.zeros((num_classes, num_annotators, num_classes)), np.zeros(num_classes)
        for block in blocks:
            probability_CB = _posterior(tally, block, rates) if rates else _shares(tally, block)
            num_C += probability_CB @ tally.is_open_N[block.items]
            for row_K, probability_B in zip(rate_CAC.reshape(num_classes, -1), probability_CB, strict=True):
                row_K += np.bincount(block.key_V, probability_B[block.item_V], len(row_K))
        rate_CAC += pseudo_CC[:, None]
        rate_CAC /= rate_CAC.sum(axis=2, keepdims=True)
        before, rates = rates, Rates(frequencies(num_C, items), rate_CAC)
        if before and rates.change(before) < TOLERANCE:
            break
    assert rates
    return rates


def _blocks(tally: Tally) -> Iterator[_Block]:
    """Items in blocks that take no more memory than the rates, or BLOCK_FLOATS."""
    num_items, num_rates = len(tally.truth_N), tally.num_annotators * tally.num_classes**2
    size = max(BLOCK_FLOATS, num_rates) // tally.num_classes
    key_V = tally.annotator_V * tally.num_classes + tally.class_V
    for begin in range(0, num_items, size):
        ends = begin, min(begin + size, num_items)
        of_V, of_P = (slice(*np.searchsorted(item, ends)) for item in (tally.item_V, tally.item_P))
        yield _Block(slice(*ends), of_P, tally.item_V[of_V] - begin, key_V[of_V])


def _shares(tally: Tally, block: _Block) -> Floats:
    """Of the items of a block the share of each class in the votes (C, B)."""
    share_CB = np.zeros((tally.num_classes, block.items.stop - block.items.start))
    share_CB[tally.class_P[block.pairs], tally.item_P[block.pairs] - block.items.start] = tally.share_P[block.pairs]
    return share_CB


def _posterior(tally: Tally, block: _Block, rates: Rates) -> Floats:
    """Of the items of a block the probability of each class (C, B)."""
    truth_B = tally.truth_N[block.items]
    log_CB = np.empty((tally.num_classes, len(truth_B)))
    for of_class, (prior, rate_AC) in enumerate(zip(*rates, strict=True)):
        log_K = np.log(np.maximum(rate_AC, SMALLEST)).ravel()
        log_CB[of_class] = np.bincount(block.item_V, log_K[block.key_V], len(truth_B))
        log_CB[of_class] += np.log(max(prior, SMALLEST))
    log_CB -= log_CB.max(axis=0)
    probability_CB = np.exp(log_CB, out=log_CB)
    probability_CB /= probability_CB.sum(axis=0)
    known = np.flatnonzero(truth_B >= 0)
    probability_CB[:, known] = 0
    probability_CB[truth_B[known], known] = 1
    return probability_CB
