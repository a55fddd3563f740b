"""Random samples by place: every item equally likely, none twice, proportions exact."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.selection.draws import SPARE_DRAWS, distinct, draw, draw_control, proportional


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_a_sample_has_distinct_numbers_of_the_range(total: int, size: int, seed: int) -> None:
    size = min(size, total)
    found = distinct(total, size, np.random.default_rng(seed))
    assert len(set(found.tolist())) == len(found) == size
    assert all(0 <= number < total for number in found)


@pytest.mark.parametrize("size", [2, 4])
def test_every_sequence_is_equally_likely(size: int) -> None:
    rng, runs = np.random.default_rng(0), 12_000
    counts = Counter(tuple(distinct(5, size, rng)) for _ in range(runs))
    expected = runs / {2: 20, 4: 120}[size]
    assert len(counts) == {2: 20, 4: 120}[size]
    # Five standard errors of a count.
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_a_sample_of_a_web_scale_pool_takes_memory_of_its_size() -> None:
    found = distinct(10**12, 1000, np.random.default_rng(0))
    assert len(np.unique(found)) == 1000
    assert found.max() > 9 * 10**11


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be from 0 to 3, got 4"):
        distinct(3, 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="size must be at most 3, got 4"):
        proportional([1, 2], 4)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=8), st.floats(0, 1))
def test_shares_are_proportional_to_within_one_and_sum_up(totals: list[int], fraction: float) -> None:
    size = int(fraction * sum(totals))
    shares = proportional(totals, size)
    assert sum(shares) == size
    for share, total in zip(shares, totals, strict=True):
        assert 0 <= share <= total
        assert abs(share - size * total / max(1, sum(totals))) < 1 + 1e-3


def test_the_largest_remainders_get_what_rounding_leaves() -> None:
    assert proportional([1, 7, 2], 4) == [0, 3, 1]
    assert proportional([5, 5, 5], 2) == [1, 1, 0]


def test_places_are_uniform_over_sources_of_any_size() -> None:
    eligible = np.array([3, 0, 7, 1])
    counts: Counter[tuple[int, int]] = Counter()
    rng = np.random.default_rng(0)
    for _ in range(4000):
        found = draw(eligible, 3, rng)
        counts.update(zip(found.source_N.tolist(), found.at_N.tolist(), strict=True))
    places = [(source, at) for source, total in enumerate(eligible) for at in range(total)]
    assert sorted(counts) == places
    expected = 4000 * 3 / len(places)
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_strata_get_their_share_and_spare_draws() -> None:
    eligible = np.array([100, 300, 100, 500, 0])
    found = draw_control(eligible, ["b", "a", "b", "c", "d"], 100, np.random.default_rng(1))
    assert found.quotas == {"a": 30, "b": 20, "c": 50, "d": 0}
    drawn = Counter(found.strata)
    assert drawn == {"a": 60 + SPARE_DRAWS, "b": 40 + SPARE_DRAWS, "c": 100 + SPARE_DRAWS}
    of = {0: "b", 1: "a", 2: "b", 3: "c"}
    assert [of[source] for source in found.draws.source_N.tolist()] == found.strata
    places = list(zip(found.draws.source_N.tolist(), found.draws.at_N.tolist(), strict=True))
    assert len(set(places)) == len(places)
    assert all(at < eligible[source] for source, at in places)


def test_no_control_needs_no_draws() -> None:
    found = draw_control(np.array([5, 5]), ["", ""], 0, np.random.default_rng(0))
    assert found.strata == []
    assert len(found.draws.source_N) == 0
