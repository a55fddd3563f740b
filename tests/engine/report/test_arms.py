"""What the rule gained over the control arm: laws of the statistics."""

import numpy as np
import pyarrow as pa
import pytest

from engine.report.arms import MOST_JUDGED, _some, known_of, variation_of


def test_the_gain_has_newcombes_interval() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, 873-890, table II, method 10: 56/70 less 48/80.
    found = known_of([True] * 48 + [False] * 32, [True] * 56 + [False] * 14).gain
    assert found is not None
    assert [round(value, 4) for value in found[:3]] == [0.2, 0.0524, 0.3339]


@pytest.mark.parametrize(("query", "control"), [([], [True]), ([True], []), ([], [])])
def test_an_arm_without_labels_has_no_gain(query: list[bool], control: list[bool]) -> None:
    found = known_of(query, control)
    assert found.gain is None
    assert [found.query is None, found.control is None] == [not query, not control]


def test_equal_histograms_do_not_differ_and_disjoint_ones_do() -> None:
    same = variation_of(np.array([[30, 20, 10], [3, 2, 1]]), 0)
    assert same.value == 0
    assert same.p == 1
    other = variation_of(np.array([[30, 0], [0, 30]]), 0)
    assert other.value == 1
    assert other.p == 1 / 2000
    assert 0 < other.by_chance < 0.3


def test_p_is_exact_where_all_divisions_can_be_counted() -> None:
    # One label of control: it is the odd one of 20 in 1 case of 20.
    assert abs(variation_of(np.array([[19, 0], [0, 1]]), 0).p - 1 / 20) < 0.02


def test_by_chance_small_p_are_rare() -> None:
    rng = np.random.default_rng(0)
    found = []
    for seed in range(200):
        control = rng.multivariate_hypergeometric([40, 30, 20, 10], 20)
        found.append(variation_of(np.stack([[40, 30, 20, 10] - control, control]), seed).p)
    assert np.mean(np.array(found) <= 0.05) <= 0.09


def test_many_judged_picks_are_a_sample_that_does_not_depend_on_how_names_are_held() -> None:
    items = pa.table({"shard": [f"s{number % 3}" for number in range(900)], "key": [f"{n:04d}" for n in range(900)]})
    rows = np.arange(100, 900)
    found = _some(items, rows, 5)
    assert len(np.unique(found)) == MOST_JUDGED
    assert set(found.tolist()) <= set(rows.tolist())
    coded = items.set_column(0, "shard", items["shard"].dictionary_encode())
    assert _some(coded, rows, 5).tolist() == found.tolist()
    assert _some(coded, rows[:7], 5).tolist() == rows[:7].tolist()
