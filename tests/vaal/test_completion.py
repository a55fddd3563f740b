"""Weights, keys and turns are their definitions, and what is found in parts merges in any tree."""

from collections.abc import Callable

import numpy as np
import pytest

from vaal.completion import (
    FINENESS,
    NEAREST,
    Items,
    by_clusters,
    cluster_order,
    draws_of,
    fixed_sums,
    in_turn,
    joined,
    keys_of,
    lowest,
    lowest_of_each,
    mean_weights,
    no_items,
    weight_of,
)
from vaal.diversity import branch_of
from vaal.diversity.class_balanced import class_balanced


def items(num: int, num_groups: int, seed: int, values: int = 40) -> Items:
    rng = np.random.default_rng(seed)
    group_K, score_K = rng.integers(num_groups, size=num) ** 2 // num_groups, rng.integers(values, size=num)
    second_K = rng.integers(3, size=num).astype(np.float32)
    return Items(group_K, score_K.astype(np.float64), second_K, rng.integers(5, size=num), np.arange(num))


def test_weights_are_what_the_labels_lack() -> None:
    logit_N = np.array([-50.0, 0.0, np.log(2), 3.0, 800.0], np.float32)
    np.testing.assert_allclose(weight_of(logit_N, 500, 500), [1, 0.5, 0, 0, 0], atol=1e-6)
    assert weight_of(logit_N, 0, 500).tolist() == [1] * 5
    assert weight_of(np.zeros(1, np.float32), 0, 0).tolist() == [1]


def test_keys_sample_in_proportion_to_the_weights() -> None:
    weight_N = np.repeat([1.0, 0.25, 0.0], 20_000)
    key_N = keys_of(weight_N, draws_of(7, np.arange(60_000) * 512, 3))
    picked = np.argsort(key_N, kind="stable")[:2000]
    counts = np.bincount(picked // 20_000, minlength=3)
    assert counts[2] == 0
    # Of 2,000 some 1,600 are of the first kind, give or take 18.
    assert abs(counts[0] - 1600) < 80
    assert np.isinf(key_N[40_000:]).all()
    assert np.isfinite(key_N[:40_000]).all()


def test_draws_are_uniform_and_differ_by_seed_and_shard() -> None:
    offset_N = np.arange(20_000, dtype=np.int64) * 512
    found = [draws_of(shard, offset_N, seed) for shard, seed in ((1, 1), (1, 2), (2, 1), (2**64 - 1, 2**31 - 1))]
    for draw_N in found:
        assert draw_N.dtype == np.uint64
        assert len(np.unique(draw_N)) == len(draw_N)
        counts = np.bincount((draw_N >> np.uint64(60)).astype(np.int64), minlength=16)
        assert ((counts - 1250) ** 2 / 1250).sum() < 40
    for number, draw_N in enumerate(found):
        for other_N in found[:number]:
            assert abs(np.corrcoef(draw_N.astype(float), other_N.astype(float))[0, 1]) < 0.03
    # The definition does not change from version to version: a resumed campaign draws the same.
    assert (
        draws_of(1, np.array([0, 512], np.int64), 1).tolist()
        == draws_of(1, np.array([0, 512, 9], np.int64), 1)[:2].tolist()
    )


def ordered(found: Items) -> list[tuple[float, ...]]:
    return [tuple(row) for row in zip(*(column.tolist() for column in found), strict=True)]


def test_the_lowest_are_those_of_a_sort() -> None:
    found = items(500, 4, 0)
    rows = sorted(ordered(found), key=lambda row: row[1:])
    assert ordered(lowest(found, 37)) == rows[:37]
    assert ordered(lowest(found, 1000)) == rows
    assert ordered(lowest(found, 0)) == []


def test_the_lowest_of_each_group_are_those_of_a_sort() -> None:
    found = items(500, 12, 1)
    rows = sorted(ordered(found))
    expected = [row for n, row in enumerate(rows) if [r[0] for r in rows[:n]].count(row[0]) < NEAREST]
    assert ordered(lowest_of_each(found, NEAREST)) == expected


def test_groups_take_turns() -> None:
    found = items(300, 6, 2)
    left = sorted(ordered(found))
    expected: list[tuple[float, ...]] = []
    while left:
        turn = [next(row for row in left if row[0] == group) for group in sorted({row[0] for row in left})]
        expected += sorted(turn, key=lambda row: row[1:])
        left = [row for row in left if row not in turn]
    assert ordered(in_turn(found, 120)) == expected[:120]
    assert ordered(in_turn(found, 300)) == expected


@pytest.mark.parametrize(("reduce", "size"), [(lowest, 40), (lowest_of_each, 3), (in_turn, 50)])
def test_parts_merge_in_any_tree(reduce: Callable[[Items, int], Items], size: int) -> None:
    for seed in range(20):
        found, rng = items(400, 9, seed), np.random.default_rng(seed)
        whole = ordered(reduce(found, size))
        part_N = rng.integers(1 + seed % 7, size=400)
        parts = [reduce(found.take(np.flatnonzero(part_N == part)), size) for part in range(7)]
        while len(parts) > 1:
            first, second = (parts.pop(rng.integers(len(parts))) for _ in range(2))
            parts.append(reduce(joined([first, second]), size))
        assert ordered(parts[0]) == whole


def test_nothing_merges_with_something() -> None:
    found = items(10, 2, 0)
    for reduce in (lowest, lowest_of_each, in_turn):
        assert ordered(reduce(no_items(), 3)) == []
        assert ordered(reduce(joined([no_items(), found]), 3)) == ordered(reduce(found, 3))


def test_sums_are_exact_in_any_order() -> None:
    rng = np.random.default_rng(0)
    weight_N, cluster_N = rng.random(5000), rng.integers(7, size=5000).astype(np.int32)
    whole = fixed_sums(cluster_N, weight_N, 9)
    order = rng.permutation(5000)
    parts = [fixed_sums(cluster_N[part], weight_N[part], 9) for part in np.array_split(order, 6)]
    assert sum(parts).tolist() == whole.tolist()  # type: ignore[attr-defined]
    mean_C = mean_weights(whole, np.bincount(cluster_N, minlength=9))
    for cluster in range(7):
        assert mean_C[cluster] == pytest.approx(weight_N[cluster_N == cluster].mean(), abs=1 / FINENESS)
    assert mean_C[7:].tolist() == [0, 0]


def test_clusters_come_in_the_order_of_what_they_lack() -> None:
    # Sums over the roots of the numbers: 1, 1.5, none, 1, 1.2, 0 and 2: mean 0.5 of sixteen before a mean of 1 of one.
    sum_C = np.array([2, 3, 0, 1, 2.4, 0, 8]) * FINENESS
    count_C = np.array([4, 4, 0, 1, 4, 9, 16])
    assert cluster_order(sum_C.astype(np.int64), count_C).tolist() == [6, 1, 4, 0, 3, 5]
    found = items(200, 5, 4)._replace(group_K=np.arange(200) % 5)
    nearest = lowest_of_each(found, NEAREST)
    listed = by_clusters(nearest, np.array([3, 0, 4]))
    assert listed.group_K.tolist() == [3] * 3 + [0] * 3 + [4] * 3
    assert ordered(listed)[:3] == [row for row in ordered(nearest) if row[0] == 3]


def test_margins_in_turn_over_the_classes() -> None:
    margin_M = np.array([0.5, 0.1, 0.2, 0.9, 0.3, 0.1], np.float32)
    predicted_M = np.array([0, 0, 0, 1, 2, 0], np.int32)
    assert class_balanced(margin_M, predicted_M, 6).tolist() == [1, 4, 3, 5, 2, 0]
    assert class_balanced(margin_M, predicted_M, 2).tolist() == [1, 4]
    with pytest.raises(ValueError, match="1 of 6 scores are not finite"):
        class_balanced(np.array([0, 1, 2, 3, 4, np.nan], np.float32), predicted_M, 2)


def test_what_an_earlier_version_did_is_explained_as_what_it_was() -> None:
    branch = branch_of("class_balanced_margin", "completion")
    assert (branch.candidates, branch.origin) == ("turned", "uncertainty")
    assert "lowest margin" in branch.reason
