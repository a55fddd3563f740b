"""Agreement against published values, and against counting pairs one by one."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crowds import crowd, votes_of
from vaal.consensus import Votes
from vaal.consensus.agreement import agreement, gold_accuracy

KRIPPENDORFF = ("1233214 12   ", "1233224 125 3", " 333234 2251 ", "1233244 1251 ")
"""Section C of Krippendorff 2011: four observers, twelve units (a blank column apart), values 1 to 5."""
rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2)), max_size=25)


def votes(found: list[tuple[int, int, int]], truth: list[int] | None = None) -> Votes:
    return votes_of(found, truth=truth or [-1] * 5, num_annotators=4, num_classes=3)


def test_krippendorffs_example() -> None:
    said = np.array([list(line) for line in KRIPPENDORFF])
    annotator_V, item_V = np.nonzero(said != " ")
    class_V = said[annotator_V, item_V].astype(np.int64) - 1
    assert len(class_V) == 41
    found = agreement(Votes(item_V, annotator_V, class_V, np.full(said.shape[1], -1), 4, 5))
    assert round(found.alpha, 3) == 0.743


def naive(found: list[tuple[int, int, int]]) -> tuple[float, list[float]]:
    by_item = [[c for i, _, c in found if i == item] for item in range(5)]
    by_item = [values for values in by_item if len(values) > 1]
    everything = [c for values in by_item for c in values]
    seen = sum(
        sum(a != b for a, b in combinations(values, 2)) * 2 / (len(values) - 1) for values in by_item
    ) / max(len(everything), 1)  # fmt: skip
    every = list(combinations(everything, 2))
    expected = sum(a != b for a, b in every) / max(len(every), 1)
    pairs = [pair for values in by_item for pair in combinations(values, 2)]
    with_class = [[pair for pair in pairs if k in pair] for k in range(3)]
    shares = [sum(a == b for a, b in some) / len(some) if some else float("nan") for some in with_class]
    return 1 - seen / expected if expected else float("nan"), shares


@given(rows)
def test_it_is_what_counting_pairs_gives(found: list[tuple[int, int, int]]) -> None:
    alpha, shares = naive(found)
    result = agreement(votes(found))
    np.testing.assert_allclose(result.alpha, alpha, atol=1e-12)
    np.testing.assert_allclose(result.agreement_C, shares)


def test_perfect_random_and_undefined() -> None:
    assert agreement(votes([(0, 0, 1), (0, 1, 1), (1, 0, 2), (1, 2, 2)])).alpha == 1
    assert np.isnan(agreement(votes([(0, 0, 1), (0, 1, 1), (1, 0, 2)])).alpha), "one class has all votes that count"
    assert np.isnan(agreement(votes([(0, 0, 1), (1, 1, 2)])).alpha), "no item has two votes"
    assert agreement(votes([(0, 0, 1), (0, 1, 2)])).alpha == 0, "two votes say nothing beyond chance"
    _, _, guesses = crowd(20_000, 12, 3, 5, accuracies=(0.2, 0.2))
    assert abs(agreement(guesses).alpha) < 0.01


def test_accuracy_on_gold_has_wilsons_interval() -> None:
    # Of known items annotator 0 has 4 of 5 right, annotator 1 has 2 of 2, annotators 2 and 3 have no votes.
    found = [(0, 0, 0), (1, 0, 1), (2, 0, 2), (0, 0, 0), (1, 0, 2), (0, 1, 0), (2, 1, 2), (3, 2, 1)]
    result = gold_accuracy(votes(found, [0, 1, 2, -1, -1]))
    assert result.num_A.tolist() == [5, 2, 0, 0]
    np.testing.assert_allclose(result.accuracy_A, [0.8, 1, np.nan, np.nan])
    np.testing.assert_allclose(result.low_A, [0.3755, 0.3424, 0, 0], atol=1e-4)
    np.testing.assert_allclose(result.high_A, [0.9638, 1, 1, 1], atol=1e-4)


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0, 0.2775), (9, 0.5958, 0.9821), (10, 0.7225, 1)])
def test_wilsons_intervals_for_ten(right: int, low: float, high: float) -> None:
    result = gold_accuracy(votes([(0, 1, 0)] * right + [(0, 1, 1)] * (10 - right), [0, -1, -1, -1, -1]))
    np.testing.assert_allclose([result.low_A[1], result.high_A[1]], [low, high], atol=1e-4)


def test_an_interval_of_nothing_but_right_or_wrong_votes_ends_exactly_at_1_or_0() -> None:
    annotator_V = np.repeat(np.arange(200), np.arange(200))
    zeros = np.zeros(len(annotator_V), np.int64)
    for said, bounds in ((zeros, "high_A"), (zeros + 1, "low_A")):
        result = gold_accuracy(Votes(zeros, annotator_V, said, np.zeros(1, np.int64), 200, 2))
        assert set(getattr(result, bounds)) == {1 - said[0]}
