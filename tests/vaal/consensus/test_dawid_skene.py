"""Error rates: those that the paper publishes, and EM on a dense array that follows the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crowds import anaesthetists, crowd, votes_of
from vaal.consensus import Votes
from vaal.consensus import dawid_skene as module
from vaal.consensus.dawid_skene import Rates, dawid_skene, estimate
from vaal.consensus.one_coin import one_coin
from vaal.consensus.pairs import ITEMS

rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40)
truths = st.lists(st.sampled_from([-1, -1, -1, 0, 1, 2]), min_size=6, max_size=6)
UNSMOOTHED = {"right": 1e-9, "wrong": 1e-9, "items": 1e-9}


def test_the_anaesthetists_have_the_published_error_rates() -> None:
    prior_C, rate_CAC = estimate(anaesthetists(), **UNSMOOTHED)
    assert prior_C.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    first = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    np.testing.assert_allclose(rate_CAC[:, 0].round(2), first)
    result = dawid_skene(anaesthetists(), **UNSMOOTHED, evenness=0)
    assert (np.bincount(result.class_N) / 45).round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    assert np.flatnonzero(result.probability_N < 0.99).tolist() == [6, 34, 37]


def dense(votes: Votes, rates: Rates) -> np.ndarray:
    joint_NC = np.tile(rates.prior_C, (len(votes.truth_N), 1))
    for item, annotator, said in zip(*votes[:3], strict=True):
        joint_NC[item] *= rates.rate_CAC[:, annotator, said]
    for item in np.flatnonzero(votes.truth_N >= 0):
        joint_NC[item] = np.arange(len(rates.prior_C)) == votes.truth_N[item]
    return joint_NC / joint_NC.sum(axis=1, keepdims=True)


@given(rows, truths)
def test_it_is_the_dense_posterior_and_rates_are_a_fixed_point(found: list, truth: list[int]) -> None:
    votes = votes_of(found, truth=truth, num_annotators=4, num_classes=3)
    rates, result = estimate(votes), dawid_skene(votes)
    probability_NC = dense(votes, rates._replace(prior_C=(rates.prior_C + 1 / 3) / 2))
    for item in np.flatnonzero(result.class_N >= 0):
        assert result.probability_N[item] == pytest.approx(probability_NC[item].max(), abs=1e-9)
        assert probability_NC[item, result.class_N[item]] == pytest.approx(result.probability_N[item], abs=2e-9)
    voters = [set(votes.annotator_V[votes.item_V == item]) for item in range(6)]
    tells = [item for item in range(6) if len(voters[item]) > 1 or (voters[item] and truth[item] >= 0)]
    probability_NC = dense(votes, rates)
    num_CAC = np.full((3, 4, 3), 0.5) + np.eye(3)[:, None] * 8.5
    for item, annotator, said in found:
        if item in tells:
            num_CAC[:, annotator, said] += probability_NC[item]
    # One more iteration; the last one changed nothing by more than the tolerance.
    np.testing.assert_allclose(rates.rate_CAC, num_CAC / num_CAC.sum(axis=2, keepdims=True), atol=1e-5)
    unknown = [item for item in tells if truth[item] < 0]
    share_C = (probability_NC[unknown].sum(axis=0) + ITEMS / 3) / (len(unknown) + ITEMS)
    np.testing.assert_allclose(rates.prior_C, share_C, atol=1e-5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, votes = crowd(500, 6, 3, 4)
    votes.truth_N[::7] = 2
    whole = dawid_skene(votes)
    monkeypatch.setattr(module, "BLOCK_FLOATS", 40)
    for one, other in zip(whole, dawid_skene(votes), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_it_sees_through_a_confusion_that_one_accuracy_cannot_express() -> None:
    rng = np.random.default_rng(0)
    class_N = rng.integers(3, size=3000)
    # Three of five annotators take most of class 1 for class 0, and are right of the others.
    said_NA = np.tile(class_N[:, None], (1, 5))
    said_NA[:, :3][(class_N[:, None] == 1) & (rng.random((3000, 3)) < 0.7)] = 0
    said_NA[:, 3:][rng.random((3000, 2)) < 0.1] = 2
    item_V, annotator_V = np.indices(said_NA.shape).reshape(2, -1)
    votes = Votes(item_V, annotator_V, said_NA.ravel(), np.full(3000, -1), 5, 3)
    assert (dawid_skene(votes).class_N == class_N).mean() > (one_coin(votes).class_N == class_N).mean() + 0.03


def test_too_many_rates_are_refused_with_the_way_out() -> None:
    votes = votes_of([(0, 0, 0)], truth=[-1], num_annotators=1000, num_classes=1000)
    with pytest.raises(ValueError, match=r"1000 annotators and 1000 classes have 1,000,000,000 error rates.*one_coin"):
        dawid_skene(votes)
