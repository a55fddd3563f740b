"""One accuracy for each annotator, against EM on a dense matrix that follows the model's definition."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.crowds import crowd, votes_of
from vaal.consensus import Votes
from vaal.consensus import pairs as settings
from vaal.consensus.majority import majority
from vaal.consensus.one_coin import one_coin

Floats = NDArray[np.float64]
rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
truths = st.lists(st.sampled_from([-1, -1, -1, 0, 1, 2, 3]), min_size=6, max_size=6)


def dense_posterior(votes: Votes, accuracy_A: Floats, prior_C: Floats) -> tuple[Floats, float]:
    """The probability of every class of every item (N, C), and the log likelihood of the items with votes."""
    joint_NC = np.where(votes.truth_N[:, None] < 0, prior_C, 1.0)
    for item, annotator, said in zip(*votes[:3], strict=True):
        wrong = (1 - accuracy_A[annotator]) / (len(prior_C) - 1)
        joint_NC[item] *= np.where(np.arange(len(prior_C)) == said, accuracy_A[annotator], wrong)
    likelihood = 0.0
    for item, known in enumerate(votes.truth_N):
        if known >= 0:
            likelihood += np.log(joint_NC[item, known])
            joint_NC[item] = np.arange(len(prior_C)) == known
        else:
            likelihood += np.log(joint_NC[item].sum())
    return joint_NC / joint_NC.sum(axis=1, keepdims=True), float(likelihood)


def dense_one_coin(votes: Votes) -> tuple[Floats, Floats]:
    """The probability of every class (N, C), and accuracies (A,); checks that each iteration is at least as likely."""
    num_items, num_classes = len(votes.truth_N), votes.num_classes
    voters = [set(votes.annotator_V[votes.item_V == item]) for item in range(num_items)]
    tells_N = np.array(
        [len(v) > 1 or (known >= 0 and len(v) > 0) for v, known in zip(voters, votes.truth_N, strict=True)]
    )
    used = tells_N[votes.item_V]
    told = votes._replace(item_V=votes.item_V[used], annotator_V=votes.annotator_V[used], class_V=votes.class_V[used])
    open_N = tells_N & (votes.truth_N < 0)
    probability_NC = np.zeros((num_items, num_classes))
    np.add.at(probability_NC, (told.item_V, told.class_V), 1)
    probability_NC /= np.maximum(probability_NC.sum(axis=1, keepdims=True), 1)
    for item in np.flatnonzero(votes.truth_N >= 0):
        probability_NC[item] = np.arange(num_classes) == votes.truth_N[item]
    before, accuracy_A, prior_C = -np.inf, np.zeros(votes.num_annotators), np.full(num_classes, 1 / num_classes)
    for _ in range(settings.MAX_ITERATIONS):
        old = accuracy_A, prior_C
        right_A, num_A = (
            np.full(votes.num_annotators, settings.RIGHT),
            np.full(votes.num_annotators, settings.RIGHT + 1),
        )
        np.add.at(right_A, told.annotator_V, probability_NC[told.item_V, told.class_V])
        np.add.at(num_A, told.annotator_V, 1)
        accuracy_A = right_A / num_A
        prior_C = (probability_NC[open_N].sum(axis=0) + settings.ITEMS / num_classes) / (open_N.sum() + settings.ITEMS)
        if max(np.abs(accuracy_A - old[0]).max(), np.abs(prior_C - old[1]).max()) < settings.TOLERANCE:
            break
        probability_NC, objective = dense_posterior(told, accuracy_A, prior_C)
        objective += settings.RIGHT * np.log(accuracy_A).sum() + settings.WRONG * np.log(1 - accuracy_A).sum()
        objective += settings.ITEMS / num_classes * np.log(prior_C).sum()
        assert objective > before - 1e-9
        before = objective
    return dense_posterior(votes, accuracy_A, (prior_C + 1 / num_classes) / 2)[0], accuracy_A


@given(rows, truths)
def test_it_is_dense_em(found: list[tuple[int, int, int]], truth: list[int]) -> None:
    votes = votes_of(found, truth=truth, num_annotators=4, num_classes=4)
    result = one_coin(votes)
    probability_NC, accuracy_A = dense_one_coin(votes)
    voters = np.unique(votes.annotator_V)
    np.testing.assert_allclose(result.accuracy_A[voters], accuracy_A[voters], atol=1e-8)
    for item in np.flatnonzero(result.class_N >= 0):
        assert result.probability_N[item] == pytest.approx(probability_NC[item].max(), abs=1e-8)
        assert probability_NC[item, result.class_N[item]] == pytest.approx(result.probability_N[item], abs=1e-8)


def test_few_votes_do_not_make_an_annotator_perfect() -> None:
    rows = [(item, 0, 0) for item in range(5)] + [(5, 1, 1)]
    result = one_coin(votes_of(rows, truth=[0] * 5 + [-1], num_annotators=2, num_classes=2))
    np.testing.assert_allclose(result.accuracy_A, [(9 + 5) / (10 + 5), 0.9])


def test_known_items_say_how_good_single_votes_are() -> None:
    # Both annotators label 100 unknown items alone; of 400 known ones annotator 0 has 95 % right, annotator 1 60 %.
    known, alone = np.arange(400), np.arange(400, 600)
    right = {0: 380, 1: 240}
    rows = [(i, a, 0 if i < right[a] else 1) for a in (0, 1) for i in known]
    rows += [(i, int(i % 2), int(i // 2 % 3)) for i in alone]
    votes = votes_of(rows, truth=[0] * 400 + [-1] * 200, num_annotators=2, num_classes=3)
    result = one_coin(votes)
    np.testing.assert_allclose(result.accuracy_A, [389 / 410, 249 / 410])
    np.testing.assert_allclose(result.probability_N[alone], result.accuracy_A[alone % 2])
    assert (result.class_N[alone] == alone // 2 % 3).all()


def test_who_is_always_wrong_tells_which_of_two_it_is() -> None:
    rows = [(item, 0, 1) for item in range(100)] + [(100, 0, 1), (101, 0, 0)]
    result = one_coin(votes_of(rows, truth=[0] * 100 + [-1] * 2, num_annotators=1, num_classes=2))
    assert result.class_N[100:].tolist() == [0, 1], "classes that nobody voted for"
    np.testing.assert_allclose(result.probability_N[100:], 1 - 9 / 110)


def test_single_votes_for_rare_classes_stand() -> None:
    class_N, _, votes = crowd(5000, 10, 3, 4, accuracies=(0.85, 0.95))
    # Nearly everything is of class 0; of the rest, and of some others, one vote is left.
    rare_N = (np.arange(5000) % 100 == 0) & (class_N > 0)
    keep = (~rare_N[votes.item_V] & (class_N[votes.item_V] == 0)) | (
        rare_N[votes.item_V] & (np.arange(15_000) % 3 == 0)
    )
    votes = votes._replace(item_V=votes.item_V[keep], annotator_V=votes.annotator_V[keep], class_V=votes.class_V[keep])
    result = one_coin(votes)
    single = rare_N[votes.item_V]
    assert single.sum() > 20
    assert (result.class_N[votes.item_V[single]] == votes.class_V[single]).all()
    assert result.probability_N[votes.item_V[single]].min() > 0.6


def test_it_beats_the_majority_and_is_right_as_often_as_it_says() -> None:
    gains = []
    for seed in range(4):
        class_N, _, votes = crowd(2000, 12, 3, 5, seed=seed, accuracies=(0.5, 0.95))
        result = one_coin(votes)
        is_right_N = result.class_N == class_N
        gains.append(is_right_N.mean() - (majority(votes).class_N == class_N).mean())
        assert result.probability_N.mean() == pytest.approx(is_right_N.mean(), abs=0.02)
    assert min(gains) > 0.005


def test_memory_does_not_grow_with_the_number_of_classes() -> None:
    peaks = []
    for num_classes in (10, 1000):
        _, _, votes = crowd(20_000, 50, 3, num_classes)
        tracemalloc.start()
        one_coin(votes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A dense matrix of probabilities would take 160 MB.
    assert peaks[1] < 1.5 * peaks[0] < 30e6
