"""Shares of votes, counted by hand."""

import numpy as np

from tests.crowds import votes_of
from vaal.consensus.majority import majority


def test_shares_ties_and_accuracies_by_hand() -> None:
    rows = [
        (0, 0, 1), (0, 1, 1), (0, 2, 0),
        (1, 0, 2), (1, 1, 0),
        (2, 0, 2), (2, 2, 2),
        (3, 2, 1),
    ]  # fmt: skip
    result = majority(votes_of(rows, truth=[-1, -1, -1, 0, -1], num_annotators=4, num_classes=3))
    assert result.class_N.tolist() == [1, 0, 2, 0, -1]
    np.testing.assert_allclose(result.probability_N, [2 / 3, 1 / 2, 1, 1, np.nan])
    # A vote for one of two tied classes is half right; the last vote of annotator 2 is against what is known.
    np.testing.assert_allclose(result.accuracy_A, [2.5 / 3, 1.5 / 2, 1 / 3, np.nan])
