"""Stochastic batches against sampling without replacement, which they are."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vaal.diversity.gumbel import gumbel_top_b, power_top_b, soft_rank_top_b, uniform


def draws(*shape: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(2**64, size=shape, dtype=np.uint64)


def logits(num_items: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=num_items).astype(np.float32)


def probability(batch: tuple[int, ...], weight: NDArray[np.float64]) -> float:
    """Of an ordered batch when items are drawn one after another in proportion to their weights (Plackett-Luce)."""
    left, total = weight.sum(), 1.0
    for item in batch:
        total *= weight[item] / left
        left -= weight[item]
    return float(total)


LOGITS = np.array([-2.0, -1.0, 0.0, 0.5, 1.0], np.float32)
WORTHS = np.array([0.1, 2.0, 1e-3, 0.0, 0.7])
LAWS = {
    "gumbel": (lambda draw_M: gumbel_top_b(LOGITS, draw_M, 2), np.exp(-LOGITS.astype(np.float64))),
    "power": (lambda draw_M: power_top_b(WORTHS, draw_M, 2), WORTHS),
    "soft_rank": (lambda draw_M: soft_rank_top_b(draw_M, 2), 1 / np.arange(1.0, 6)),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.heavy
def test_batches_are_as_frequent_as_sampling_without_replacement_has_them(name: str) -> None:
    num_trials, (choose, weight) = 20_000, LAWS[name]
    found = [tuple(choose(draw_M).tolist()) for draw_M in draws(num_trials, 5)]
    for batch in permutations(range(5), 2):
        expected = probability(batch, weight)
        error = np.sqrt(expected * (1 - expected) / num_trials)
        # 20 batches: with the right law, one in 800 seeds is beyond four standard errors.
        assert abs(found.count(batch) / num_trials - expected) <= 4 * error


def test_power_does_not_depend_on_the_unit_and_ends_with_what_is_worth_nothing() -> None:
    worth = np.random.default_rng(2).uniform(size=40)
    worth[::4] = 0
    whole = power_top_b(worth, draws(40), 40).tolist()
    assert whole[30:] == list(range(0, 40, 4))
    assert power_top_b(1e-9 * worth, draws(40), 40).tolist() == whole
    assert power_top_b(np.zeros(4), draws(4), 3).tolist() == [0, 1, 2]


def test_power_and_soft_rank_are_heads_of_larger_batches_and_refuse_what_they_cannot_do() -> None:
    worth = np.random.default_rng(2).uniform(size=9)
    for choose in (lambda b: power_top_b(worth, draws(9), b), lambda b: soft_rank_top_b(draws(9), b)):
        assert sorted(choose(9).tolist()) == list(range(9))
        assert all(choose(b).tolist() == choose(9).tolist()[:b] for b in range(9))
    with pytest.raises(ValueError, match="b of power must be from 0 to 9, got 10"):
        power_top_b(worth, draws(9), 10)
    with pytest.raises(ValueError, match="b of soft_rank must be from 0 to 9, got -1"):
        soft_rank_top_b(draws(9), -1)
    with pytest.raises(ValueError, match=r"2 of 3 worths are negative, least -0\.5"):
        power_top_b(np.array([-0.5, 1, -0.2]), draws(3), 1)
    with pytest.raises(ValueError, match="1 of 3 worths are not finite"):
        power_top_b(np.array([0.5, 1, np.inf]), draws(3), 1)


@given(st.integers(0, 2**32 - 1))
def test_permuting_the_items_permutes_the_batch(seed: int) -> None:
    logit, draw_M = logits(40), draws(40)
    order = np.random.default_rng(seed).permutation(40)
    batch = gumbel_top_b(logit[order], draw_M[order], 15)
    assert order[batch].tolist() == gumbel_top_b(logit, draw_M, 15).tolist()


def test_a_batch_is_the_head_of_a_larger_one_and_all_are_taken_once() -> None:
    logit, draw_M = logits(30), draws(30)
    whole = gumbel_top_b(logit, draw_M, 30).tolist()
    assert sorted(whole) == list(range(30))
    assert all(gumbel_top_b(logit, draw_M, b).tolist() == whole[:b] for b in range(30))


def test_equal_items_go_by_index() -> None:
    # So many that a sort which is not stable would show.
    logit = np.tile(np.array([2, 1, 0], np.float32), 1000)
    equal = gumbel_top_b(logit, np.full(3000, 7, np.uint64), 3000)
    assert equal.tolist() == [*range(2, 3000, 3), *range(1, 3000, 3), *range(0, 3000, 3)]


def test_the_uniform_of_a_draw_is_never_0_or_1_and_keeps_the_order() -> None:
    extremes = np.array([0, 2**64 - 1], np.uint64)
    assert uniform(extremes).tolist() == [2.0**-53, 1 - 2.0**-53]
    assert np.isfinite(-np.log(-np.log(uniform(extremes)))).all()
    some = np.sort(draws(10_000))
    assert (np.diff(uniform(some)) >= 0).all()
    assert abs(uniform(some).mean() - 0.5) < 4 * np.sqrt(1 / 12 / 10_000)


@pytest.mark.parametrize("b", [-1, 5])
def test_a_wrong_b_is_refused(b: int) -> None:
    with pytest.raises(ValueError, match=f"b of gumbel must be from 0 to 4, got {b}"):
        gumbel_top_b(logits(4), draws(4), b)


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="2 of 3 scores are not finite"):
        gumbel_top_b(np.array([0, np.nan, -np.inf], np.float32), draws(3), 1)
