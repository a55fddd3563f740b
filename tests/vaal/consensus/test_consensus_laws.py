"""What holds for every row of CONSENSUS."""

import pkgutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crowds import crowd, votes_of
from vaal.consensus import CONSENSUS, Consensus, Votes

NUM_ITEMS, NUM_ANNOTATORS, NUM_CLASSES = 6, 4, 3
rows = st.lists(
    st.tuples(st.integers(0, NUM_ITEMS - 1), st.integers(0, NUM_ANNOTATORS - 1), st.integers(0, NUM_CLASSES - 1)),
    max_size=30,
)
truths = st.lists(st.sampled_from([-1, -1, -1, 0, 1, 2]), min_size=NUM_ITEMS, max_size=NUM_ITEMS)
methods = pytest.mark.parametrize("method", CONSENSUS)


def consensus(method: str, votes: Votes) -> Consensus:
    found: Consensus = pkgutil.resolve_name(CONSENSUS[method].function)(votes)
    return found


def small(found: list[tuple[int, int, int]], truth: list[int] | None = None) -> Votes:
    truth = truth or [-1] * NUM_ITEMS
    return votes_of(found, truth=truth, num_annotators=NUM_ANNOTATORS, num_classes=NUM_CLASSES)


def assert_equal(left: Consensus, right: Consensus) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@methods
@given(rows, truths, st.randoms(use_true_random=False))
def test_the_order_of_votes_changes_no_bit(method: str, found: list, truth: list[int], random) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    assert_equal(consensus(method, small(found, truth)), consensus(method, small(shuffled, truth)))


@methods
def test_nor_does_it_among_many_votes(method: str) -> None:
    # Sums of many numbers depend on their order.
    _, _, votes = crowd(300, 12, 9, 3)
    order = np.random.default_rng(0).permutation(len(votes.item_V))
    shuffled = votes._replace(
        item_V=votes.item_V[order], annotator_V=votes.annotator_V[order], class_V=votes.class_V[order]
    )
    assert_equal(consensus(method, votes), consensus(method, shuffled))


@methods
@given(
    rows, truths, st.permutations(range(NUM_ITEMS)), st.permutations(range(NUM_ANNOTATORS)),
    st.permutations(range(NUM_CLASSES)),
)  # fmt: skip
def test_names_do_not_matter(method: str, found: list, truth: list[int], items, annotators, classes) -> None:
    plain = consensus(method, small(found, truth))
    new_truth = [-1] * NUM_ITEMS
    for item, known in enumerate(truth):
        new_truth[items[item]] = classes[known] if known >= 0 else -1
    renamed = consensus(method, small([(items[i], annotators[a], classes[c]) for i, a, c in found], new_truth))
    np.testing.assert_allclose(renamed.probability_N[items], plain.probability_N, atol=1e-5)
    np.testing.assert_allclose(renamed.accuracy_A[annotators], plain.accuracy_A, atol=1e-5)
    # Where more than half is for one class, no other is tied with it.
    for item in np.flatnonzero(plain.probability_N > 0.5001):
        assert renamed.class_N[items[item]] == classes[plain.class_N[item]]


@methods
@given(rows, truths)
def test_what_is_known_is_known_and_without_votes_nothing_is(method: str, found: list, truth: list[int]) -> None:
    result = consensus(method, small(found, truth))
    voted, voters = {row[0] for row in found}, {row[1] for row in found}
    for item, known in enumerate(truth):
        if known >= 0:
            assert (result.class_N[item], result.probability_N[item]) == (known, 1)
        elif item in voted:
            assert 0 <= result.class_N[item] < NUM_CLASSES
            assert 1 / NUM_CLASSES - 1e-6 <= result.probability_N[item] <= 1
        else:
            assert result.class_N[item] == -1
            assert np.isnan(result.probability_N[item])
    assert np.isnan(result.accuracy_A).tolist() == [a not in voters for a in range(NUM_ANNOTATORS)]
    assert [array.dtype for array in result] == [np.int64, np.float64, np.float64]


@methods
def test_a_vote_that_is_there_twice_counts_twice(method: str) -> None:
    once = consensus(method, small([(0, 0, 2), (0, 1, 1)]))
    assert once.class_N[0] == 1, "of tied classes the lowest"
    assert once.probability_N[0] <= 0.5
    twice = consensus(method, small([(0, 0, 2), (0, 0, 2), (0, 1, 1)]))
    assert twice.class_N[0] == 2
    assert twice.probability_N[0] > 0.6


@methods
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_without_a_second_opinion_labels_are_the_votes(method: str, num_classes: int) -> None:
    # Most votes are for one class, which tempts an estimate to take the others for errors.
    rng = np.random.default_rng(0)
    class_V = np.where(rng.random(500) < 0.95, 0, rng.integers(num_classes, size=500))
    votes = Votes(np.arange(500), rng.integers(4, size=500), class_V, np.full(500, -1), 4, num_classes)
    result = consensus(method, votes)
    assert (result.class_N == class_V).all()
    expected = 1.0 if method == "majority" else 0.9
    np.testing.assert_allclose(result.probability_N, expected)
    np.testing.assert_allclose(result.accuracy_A, expected)


@methods
def test_few_items_do_not_say_which_class_is_common(method: str) -> None:
    # Three people agree on the first item, each names another class for the second; the third has one vote.
    result = consensus(method, small([(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 1), (1, 2, 2), (2, 0, 1)]))
    assert (result.class_N[0], result.class_N[2]) == (0, 1)
    assert result.probability_N[1] < 0.5
    assert result.probability_N[[0, 2]].min() > 0.8


@methods
def test_it_finds_most_classes_of_a_crowd(method: str) -> None:
    class_N, accuracy_A, votes = crowd(2000, 12, 3, 5, seed=1)
    result = consensus(method, votes)
    assert (result.class_N == class_N).mean() > 0.92
    assert np.abs(result.accuracy_A - accuracy_A).max() < 0.08


@methods
def test_a_crowd_that_sees_one_class_mostly(method: str) -> None:
    class_N, _, votes = crowd(2000, 12, 3, 5, seed=1, common=0.9)
    is_right_N = consensus(method, votes).class_N == class_N
    assert is_right_N.mean() > 0.95
    assert is_right_N[class_N > 0].mean() > 0.85


@methods
def test_nothing_at_all(method: str) -> None:
    result = consensus(method, votes_of([], truth=[], num_annotators=0, num_classes=1))
    assert [len(array) for array in result] == [0, 0, 0]
    alone = consensus(method, votes_of([(0, 0, 0), (0, 1, 0)], truth=[-1], num_annotators=2, num_classes=1))
    assert (alone.class_N.tolist(), alone.probability_N.tolist()) == ([0], [1])


@methods
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"item_V": np.array([6])}, "a number of item must be from 0 to 5, got 6"),
        ({"annotator_V": np.array([-1])}, "a number of annotator must be from 0 to 3, got -1"),
        ({"class_V": np.array([3])}, "a number of class must be from 0 to 2, got 3"),
        ({"truth_N": np.array([0, 1, 2, -2, 0, 0])}, "a number of known class must be from -1 to 2, got -2"),
        ({"class_V": np.array([0, 1])}, "2 numbers of class for 1 votes"),
        ({"num_classes": 0}, "the number of classes must be from 1"),
    ],
)
def test_wrong_numbers_are_refused(method: str, change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        consensus(method, small([(0, 0, 0)])._replace(**change))
