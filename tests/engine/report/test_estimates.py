"""Shares of a population: the published intervals, and that they hold what they say they do."""

import numpy as np
import pytest
from scipy import stats

from engine.report.estimates import Samples
from vaal.proportions import wilson


def test_wilsons_interval_holds_the_share_and_is_the_published_one() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table I: 81 of 263.
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    for hits in range(6):
        found = wilson(hits, 5)
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 0.3


def samples(sizes: list[int], unknown: list[float]) -> Samples:
    return Samples(np.array(sizes, np.float64), np.array(unknown))


@pytest.mark.parametrize("hits", [0, 3, 40])
def test_one_sample_of_all_has_the_exact_interval(hits: int) -> None:
    found = samples([40], [1.0]).share(np.zeros(1), np.array([float(hits)]), 4)
    exact = stats.binomtest(hits, 40).proportion_ci(1 - 0.05 / 4, "exact")
    assert found[:3] == pytest.approx((hits / 40, exact.low, exact.high))
    assert found.total == 40


def test_samples_of_the_same_population_are_one() -> None:
    two = samples([30, 50], [0.5, 0.5]).share(np.array([0.1, 0.1]), np.array([6.0, 10.0]), 1)
    one = samples([80], [0.5]).share(np.array([0.1]), np.array([16.0]), 1)
    assert two == pytest.approx(one)
    # What is labelled is known, and half of the pool is sampled: 0.1 + 0.5 * 16 / 80.
    assert one.value == pytest.approx(0.2)


def test_estimates_of_a_pool_that_is_labelled_bit_by_bit_are_unbiased_and_hold_it() -> None:
    """Rounds of a pool of 1,000 images: those of the first class are labelled first, and control arms of 40."""
    rng, truth = np.random.default_rng(0), np.repeat([0, 1, 2], [300, 600, 100])
    shares, held = [], []
    for _ in range(400):
        is_known = np.zeros(1000, bool)
        sizes, unknown, known, hits = list[int](), list[float](), list[float](), list[float]()
        for _ in range(3):
            left = np.flatnonzero(~is_known)
            drawn = rng.choice(left, 40, replace=False)
            sizes.append(40)
            unknown.append(len(left) / 1000)
            known.append(float((truth[is_known] == 0).sum()) / 1000)
            hits.append(float((truth[drawn] == 0).sum()))
            is_known[drawn] = True
            is_known[rng.permutation(np.flatnonzero(~is_known & (truth == 0)))[:60]] = True
        found = samples(sizes, unknown).share(np.array(known), np.array(hits), 1)
        shares.append(found.value)
        held.append(found.low <= 0.3 <= found.high)
    assert np.mean(shares) == pytest.approx(0.3, abs=3 * np.std(shares) / np.sqrt(400))
    assert np.mean(held) >= 0.95
    # Not because they say nothing.
    assert found.high - found.low < 0.2


def test_intervals_of_several_shares_hold_all_together() -> None:
    rng, truth, held = np.random.default_rng(1), np.array([0.4, 0.3, 0.2, 0.1]), []
    for hits in rng.multinomial(60, truth, 500):
        found = [samples([60], [1.0]).share(np.zeros(1), np.array([float(n)]), 4) for n in hits]
        held.append(all(one.low <= share <= one.high for one, share in zip(found, truth, strict=True)))
    assert np.mean(held) >= 0.95
