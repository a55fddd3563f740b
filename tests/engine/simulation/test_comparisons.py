"""The statistics of learning curves, on curves whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from engine.simulation import comparisons
from engine.simulation.comparisons import LEVEL, area, band, differences, holm, isotonic, mean_interval, savings

LABELS = np.array([100.0, 200.0, 300.0, 400.0, 500.0])


def test_the_area_is_the_mean_height_of_the_curve() -> None:
    assert area(LABELS, np.array([[0.5] * 5, [0, 0.25, 0.5, 0.75, 1]])) == pytest.approx([0.5, 0.5])
    # Labels are not evenly spaced: a trapezoid counts by its width.
    assert area(np.array([0.0, 1, 4]), np.array([[0.0, 1, 1]])) == pytest.approx([0.875])


@pytest.mark.parametrize("size", [6, 9, 12])
def test_the_sign_test_is_the_exact_one(size: int) -> None:
    gap = np.random.default_rng(size).normal(0.3, 1, size)
    exact = stats.permutation_test((gap,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert comparisons.sign_flip(gap) == pytest.approx(exact)


def test_the_sign_test_is_right_where_it_draws() -> None:
    gap = np.random.default_rng(0).normal(0.3, 1, 20)
    assert comparisons.sign_flip(gap) == pytest.approx(stats.ttest_1samp(gap, 0).pvalue, abs=0.02)


def test_holm_corrects_in_order_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.heavy
def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(3)
    intervals = [mean_interval(rng.exponential(size=8) - 1) for _ in range(60)]
    assert sum(found.low <= 0 <= found.high for found in intervals) >= 0.85 * 60


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
def test_intervals_and_bands_of_few_seeds_cover_the_truth(size: int) -> None:
    rng = np.random.default_rng(3)
    walks = rng.normal(0, 1, (1000, size, 1)) + rng.normal(0, 0.5, (1000, size, 5)).cumsum(axis=2)
    covered = [bool((np.abs(mean) <= half).all()) for mean, half in map(band, walks)]
    assert 0.94 <= np.mean(covered) <= 0.99
    if size < comparisons.LEAST_SEEDS:
        intervals = [mean_interval(walk[:, 0]) for walk in walks]
        assert np.mean([found.low <= 0 <= found.high for found in intervals]) == pytest.approx(0.95, abs=0.02)


def test_a_band_is_wider_than_pointwise_intervals_and_single_seeds_have_none() -> None:
    curves = np.random.default_rng(0).normal(0, 1, (10, 6))
    _, half = band(curves)
    assert (half > stats.t.ppf(0.975, 9) * curves.std(axis=0, ddof=1) / math.sqrt(10)).all()
    assert np.isinf(band(curves[:1])[1]).all()
    assert band(np.ones((5, 3)))[1].tolist() == [0, 0, 0]


def test_with_few_seeds_nothing_is_shown_however_large() -> None:
    gaps = {"a": np.full(5, 10.0) + np.arange(5)}
    assert not differences(gaps)["a"].is_shown
    assert differences({"a": np.full(6, 10.0) + np.arange(6)})["a"].is_shown
    # In a family of five, six seeds cannot show anything either.
    family = {str(n): np.full(6, 10.0) + np.arange(6) for n in range(5)}
    assert not any(gap.is_shown for gap in differences(family).values())
    assert comparisons.least_p(6, 5) >= LEVEL > comparisons.least_p(8, 5)


def test_as_many_seeds_as_it_says_would_show_it_in_four_of_five_cases() -> None:
    rng = np.random.default_rng(5)
    gap = rng.normal(0, 1, 10)
    gap = (gap - gap.mean()) / gap.std(ddof=1) + 0.5
    needed = differences({"a": gap})["a"].seeds_needed
    assert needed
    shown = [stats.ttest_1samp(rng.normal(0.5, 1, needed), 0).pvalue < LEVEL for _ in range(400)]
    assert np.mean(shown) == pytest.approx(comparisons.POWER, abs=0.07)
    assert comparisons.seeds_needed(np.array([1.0, -1.0, 1e-6]), 1) is None


def test_labels_saved_are_read_between_the_points() -> None:
    reference = np.tile([0.2, 0.4, 0.6, 0.7, 0.8], (8, 1))
    own = np.tile([0.2, 0.6, 0.8, 0.8, 0.8], (8, 1))
    whole, three_quarters, half = savings(LABELS, own, reference)
    assert whole
    assert whole.saved == pytest.approx((0.5, 0.5, 0.5))
    assert whole.bought == pytest.approx(400)
    assert whole.accuracy == pytest.approx(0.8)
    assert half
    # Random has 0.5 with 250 labels, the strategy with 175.
    assert half.saved.value == pytest.approx(0.5)
    assert three_quarters
    assert three_quarters.bought == pytest.approx(250)


def test_what_is_not_reached_is_said_and_never_extrapolated() -> None:
    reference = np.tile([0.2, 0.4, 0.6, 0.7, 0.8], (8, 1))
    worse = reference - [0, 0.1, 0.1, 0.1, 0.1]
    whole, _, half = savings(LABELS, worse, reference)
    assert whole
    assert whole.saved.value == -math.inf
    assert whole.not_reached == 1
    assert half
    assert half.saved.value == pytest.approx(1 - 200 / 150)
    assert savings(LABELS, reference, reference[:, ::-1]) == [None, None, None]


def test_a_gain_that_is_rounding_is_none() -> None:
    # The mean of the same three numbers in another order.
    first, last = np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.2, 0.1])
    reference = np.stack([first, last], axis=1)
    assert 0 < abs(np.diff(reference.mean(axis=0))[0]) < 1e-15
    for curve in (reference, reference[:, ::-1]):
        assert savings(np.array([10.0, 20.0]), reference, curve) == [None] * 3


def test_isotonic_curves_are_those_of_scikit_learn() -> None:
    from sklearn.isotonic import IsotonicRegression

    values = np.random.default_rng(2).normal(np.arange(12) / 5, 1)
    assert isotonic(values) == pytest.approx(IsotonicRegression().fit_transform(np.arange(12), values))
