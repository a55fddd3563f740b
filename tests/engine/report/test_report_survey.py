"""The histogram and the sample of a report equal their definitions, however the items come."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.report.survey import GROUPS, Bins, Histogram, UniformSample

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
PIECES = st.lists(st.tuples(st.sampled_from(GROUPS), st.lists(FLOATS, max_size=20)), max_size=12)
NUM_BINS = 16


def histogram(pieces: list[tuple[str, list[float]]]) -> Bins:
    counter = Histogram(NUM_BINS)
    for group, values in pieces:
        counter.add(group, np.array(values, np.float32))
    return counter.bins()


@given(PIECES.filter(lambda pieces: any(values for _, values in pieces)))
def test_histogram_is_numpys_over_the_same_edges(pieces: list[tuple[str, list[float]]]) -> None:
    bins = histogram(pieces)
    assert len(bins.edges) - 1 <= NUM_BINS
    assert (np.diff(bins.edges) > 0).all()
    for group in GROUPS:
        values = np.array([v for name, values in pieces if name == group for v in values], np.float64)
        expected, _ = np.histogram(values, bins.edges)
        assert bins.counts[group].tolist() == expected.tolist()
        assert bins.counts[group].sum() == len(values)


@given(PIECES.filter(lambda pieces: any(values for _, values in pieces)), st.randoms(use_true_random=False))
def test_histogram_depends_on_the_values_alone(pieces, random) -> None:  # type: ignore[no-untyped-def]
    whole = histogram(pieces)
    single = [(group, [value]) for group, values in pieces for value in values]
    random.shuffle(single)
    again = histogram(single)
    np.testing.assert_array_equal(again.edges, whole.edges)
    for group in GROUPS:
        np.testing.assert_array_equal(again.counts[group], whole.counts[group])


def test_histogram_is_as_fine_as_its_bins_allow() -> None:
    # 8 / 16 is a width of 1/2; the smallest power of two that covers [0, 8.1] with 16 bins is 1.
    assert np.diff(histogram([("picked", [0, 7.9])]).edges).tolist() == [0.5] * 16
    assert np.diff(histogram([("picked", [0, 8.1])]).edges).tolist() == [1.0] * 9


def test_histogram_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        Histogram(NUM_BINS).bins()


def draw(seed: int, sizes: tuple[int, ...], size: int) -> list[int]:
    sample = UniformSample(size, np.random.default_rng(seed))
    start = 0
    for count in sizes:
        sample.add(pa.table({"item": pa.array(range(start, start + count), pa.int64())}))
        start += count
    return sorted(row["item"] for row in sample.rows())


def test_sample_does_not_depend_on_how_the_rows_are_cut() -> None:
    for seed in range(20):
        assert draw(seed, (12,), 4) == draw(seed, (5, 0, 1, 6), 4) == draw(seed, (2, 10), 4)


def test_sample_is_without_replacement_and_all_rows_when_there_are_few() -> None:
    assert len(set(draw(0, (7, 7), 5))) == 5
    assert draw(0, (2, 1), 5) == [0, 1, 2]


def test_sample_is_uniform_over_all_subsets() -> None:
    num_draws = 6000
    found: dict[tuple[int, ...], int] = {}
    for seed in range(num_draws):
        subset = tuple(draw(seed, (1, 3, 2), 2))
        found[subset] = found.get(subset, 0) + 1
    expected = num_draws / 15
    chi_square = sum((count - expected) ** 2 / expected for count in found.values())
    assert len(found) == 15
    # The 99.9 % quantile for 14 degrees of freedom; the seeds are fixed.
    assert chi_square < 36.12
