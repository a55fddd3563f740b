"""A histogram equals its definition, however its values come and wherever they are counted."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tables.histogram import GROUPS, HISTOGRAM_SCHEMA, Histogram

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
PIECES = st.lists(st.tuples(st.sampled_from(GROUPS), st.lists(FLOATS, max_size=20)), max_size=12)
Piece = tuple[str, list[float]]
NUM_BINS = 16


def histogram(pieces: list[Piece]) -> Histogram:
    counter = Histogram(NUM_BINS)
    for group, values in pieces:
        counter.add(group, np.array(values, np.float32))
    return counter


@given(PIECES)
@settings(deadline=None)
def test_counts_are_numpys_over_the_same_edges(pieces: list[Piece]) -> None:
    table = histogram(pieces).to_table()
    assert table.schema == HISTOGRAM_SCHEMA
    assert len(table) <= NUM_BINS
    low, high = (table[name].to_numpy() for name in ("low", "high"))
    assert (low < high).all()
    assert low[1:].tolist() == high[:-1].tolist()
    for group in GROUPS:
        values = np.array([v for name, values in pieces if name == group for v in values], np.float64)
        expected = np.histogram(values, [*low, high[-1]])[0].tolist() if len(table) else []
        assert table[group].to_pylist() == expected
        assert sum(expected) == len(values)
    if len(table):
        # The first and the last bin hold the lowest and the highest value.
        counts = sum(table[group].to_numpy() for group in GROUPS)
        assert counts[0]
        assert counts[-1]


@given(PIECES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_counts_depend_on_the_values_alone(pieces, random) -> None:  # type: ignore[no-untyped-def]
    single = [(group, [value]) for group, values in pieces for value in values]
    random.shuffle(single)
    assert histogram(single).to_table().equals(histogram(pieces).to_table())


@given(st.lists(PIECES, max_size=5), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_merging_equals_adding_all_values_to_one(parts, random) -> None:  # type: ignore[no-untyped-def]
    expected = histogram([piece for part in parts for piece in part]).to_table()
    counted = [histogram(part) for part in parts] or [Histogram(NUM_BINS)]
    before = [part.to_table() for part in counted]
    while len(counted) > 1:
        # Any tree: two that are anywhere among them become one, which travels as Ray sends it.
        random.shuffle(counted)
        merged = Histogram(NUM_BINS)
        for _ in range(2):
            merged.merge(pickle.loads(pickle.dumps(counted.pop())))
        counted.append(merged)
    assert counted[0].to_table().equals(expected)
    assert [histogram(part).to_table() for part in parts] == before[: len(parts)]


def test_bins_are_as_fine_as_their_number_allows() -> None:
    # 8 / 16 is a width of 1/2; the smallest power of two that covers [0, 8.1] with 16 bins is 1.
    for values, width, size in (([0, 7.9], 0.5, 16), ([0, 8.1], 1.0, 9)):
        table = histogram([("out", values)]).to_table()
        assert len(table) == size
        assert set(np.subtract(table["high"], table["low"]).tolist()) == {width}


@pytest.mark.parametrize("values", [[3e38, -3e38], [1e-38, -1e-38, 0.0], [-0.0, 1e-45], [3e38, 1e-38, -1e-45, -0.0]])
def test_values_of_any_size_are_counted_exactly(values: list[float]) -> None:
    merged = Histogram(NUM_BINS)
    for value in values:
        merged.merge(histogram([("eligible", [value])]))
    table = histogram([("eligible", values)]).to_table()
    assert merged.to_table().equals(table)
    for row in table.to_pylist():
        inside = [value for value in np.array(values, np.float32).tolist() if row["low"] <= value < row["high"]]
        assert row["eligible"] == len(inside)


def test_a_histogram_of_nothing_has_no_rows() -> None:
    empty = Histogram(NUM_BINS)
    empty.add("out", np.empty(0, np.float32))
    empty.merge(Histogram(NUM_BINS))
    assert empty.to_table().equals(HISTOGRAM_SCHEMA.empty_table())


def test_more_values_than_are_worked_on_at_once() -> None:
    values = np.random.default_rng(0).normal(0, 2, 100_000).astype(np.float32)
    table = histogram([("labelled", values)]).to_table()  # type: ignore[list-item]
    edges = [*table["low"].to_numpy(), table["high"].to_numpy()[-1]]
    assert table["labelled"].to_pylist() == np.histogram(values.astype(np.float64), edges)[0].tolist()
