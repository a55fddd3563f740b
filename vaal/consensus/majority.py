"""Majority: the class with the most votes."""

import numpy as np

from vaal.consensus import Consensus, Votes
from vaal.consensus.pairs import TIE, best_of, concluded, tally_of


def majority(votes: Votes) -> Consensus:
    """The class with the most votes, of several the lowest; its probability is its share of the votes, exactly.

    The accuracy of an annotator is the share of their votes that agree with the majority, or with the class that is
    known. A vote for one of t classes that are tied agrees by 1 / t. O(V log V + N) time, O(V + N) memory.
    """
    tally = tally_of(votes)
    class_N, share_N = best_of(tally, tally.share_P)
    is_best_P = (tally.share_P > 0) & (tally.share_P > share_N[tally.item_P] - TIE)
    num_best_N = np.bincount(tally.item_P, is_best_P, len(class_N))
    agrees_P = is_best_P / np.maximum(num_best_N, 1)[tally.item_P]
    num_A = np.bincount(tally.annotator_V, minlength=tally.num_annotators)
    agrees_A = np.bincount(tally.annotator_V, agrees_P[tally.pair_V], tally.num_annotators)
    return concluded(tally, class_N, share_N, agrees_A / np.maximum(num_A, 1))
