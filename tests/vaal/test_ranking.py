"""Exact top-b: the definition, the merge law, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaal.ranking import Scored, top_b

# Few distinct values, so that ties in logit and in shard are the rule.
rows = st.lists(
    st.tuples(
        st.sampled_from([-1.5, -0.0, 0.0, 0.25, np.float32(0.1), 7.0, float("-inf")]),
        st.sampled_from(["a.tar", "b.tar", "b/a.tar", "ä.tar"]),
        st.text(st.sampled_from("0aAé\U0001f600"), max_size=3),
    ),
    unique_by=lambda row: row[1:],
    max_size=30,
)


def scored(items: list[tuple[float, str, str]]) -> Scored:
    logit, shard, key = zip(*items, strict=True) if items else ((), (), ())
    return Scored(np.array(logit, np.float32), np.array(shard, np.str_), np.array(key, np.str_))


def chosen(items: list[tuple[float, str, str]], b: int) -> list[tuple[float, str, str]]:
    return [items[i] for i in top_b(scored(items), b)]


@given(rows, st.integers(0, 20))
def test_top_b_is_sort_everything_and_take_b(items: list[tuple[float, str, str]], b: int) -> None:
    by_definition = sorted(items, key=lambda row: (float(np.float32(row[0])), row[1], row[2]))[:b]
    assert chosen(items, b) == by_definition


@given(rows, st.integers(0, 30), st.integers(0, 20))
def test_merging_partial_results_changes_nothing(items: list[tuple[float, str, str]], cut: int, b: int) -> None:
    assert chosen(chosen(items[:cut], b) + chosen(items[cut:], b), b) == chosen(items, b)


def test_nan_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 scores are NaN, first \['b.tar/k'\]"):
        top_b(scored([(0.0, "a.tar", "k"), (float("nan"), "b.tar", "k")]), 1)


def test_a_negative_b_is_refused() -> None:
    with pytest.raises(ValueError, match="b must be at least 0, got -1"):
        top_b(scored([]), -1)


@given(rows, st.integers(0, 20))
def test_strings_as_objects_order_alike(items: list[tuple[float, str, str]], b: int) -> None:
    logit, shard, key = scored(items)
    assert list(top_b(Scored(logit, shard.astype(object), key.astype(object)), b)) == list(
        top_b(Scored(logit, shard, key), b)
    )
