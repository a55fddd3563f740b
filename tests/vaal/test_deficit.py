"""The gate keeps its level on random labels, sees biased ones, and is not misled by picks for uncertainty."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vaal import deficit
from vaal.deficit import Coverage, Deficit, deficit_of, num_coarse

NUM_KINDS, CLUSTERS_A_KIND = 10, 20


def pool(seed: int, size: int = 4000) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Centres of 200 clusters about ten places; the cluster of each item; the kind of each cluster."""
    rng = np.random.default_rng(seed)
    kind_C = np.repeat(np.arange(NUM_KINDS), CLUSTERS_A_KIND)
    places = rng.normal(size=(NUM_KINDS, 8)) * 30
    centre_CZ = np.clip((places[kind_C] + rng.normal(size=(len(kind_C), 8)) * 15).round(), -127, 127)
    return centre_CZ.astype(np.float32), rng.integers(len(kind_C), size=size), kind_C


def coverage_of(
    cluster_N: NDArray[np.int64], drawn: NDArray[np.intp], filled: NDArray[np.intp] | None = None
) -> Coverage:
    filled = np.empty(0, np.intp) if filled is None else filled
    counts = [np.bincount(cluster_N[rows], minlength=200) for rows in (slice(None), drawn, filled)]
    return Coverage(counts[0] - counts[1] - counts[2], counts[1], counts[2])


@pytest.mark.heavy
@pytest.mark.parametrize("num_labels", [20, 200, 2000])
def test_random_labels_seldom_make_it_speak(num_labels: int) -> None:
    spoken = []
    for seed in range(60):
        centre_CZ, cluster_N, _ = pool(seed)
        drawn = np.random.default_rng([seed, 1]).choice(len(cluster_N), num_labels, replace=False)
        spoken.append(deficit_of(coverage_of(cluster_N, drawn), centre_CZ, seed))
    # 2.5 % of 60 is 1.5; more than 5 has a probability below 1 %.
    assert sum(found.p < 0.025 for found in spoken) <= 5
    assert sum(found.speaks for found in spoken) <= 3
    assert abs(np.mean([found.excess for found in spoken])) < 0.03


@pytest.mark.heavy
def test_p_values_of_random_labels_are_uniform() -> None:
    found = []
    for seed in range(100):
        centre_CZ, cluster_N, _ = pool(seed % 5)
        drawn = np.random.default_rng([seed, 2]).choice(len(cluster_N), 100, replace=False)
        found.append(deficit_of(coverage_of(cluster_N, drawn), centre_CZ, seed).p)
    # Kolmogorov's bound of 1 % for 100 values.
    assert np.abs(np.sort(found) - (np.arange(100) + 0.5) / 100).max() < 0.17


def test_missing_kinds_make_it_speak_until_they_are_labelled() -> None:
    centre_CZ, cluster_N, kind_C = pool(0)
    has_label = np.flatnonzero(kind_C[cluster_N] < 5)
    drawn = np.random.default_rng(0).choice(has_label, 200, replace=False)
    found = deficit_of(coverage_of(cluster_N, drawn), centre_CZ, 0)
    assert found.speaks
    assert found.excess > 0.2
    assert found.p == pytest.approx(1 / 401)
    lacking = np.random.default_rng(1).choice(np.flatnonzero(kind_C[cluster_N] >= 5), 200, replace=False)
    assert not deficit_of(coverage_of(cluster_N, np.concatenate([drawn, lacking])), centre_CZ, 0).speaks


def test_uncertain_labels_fill_gaps_and_make_none() -> None:
    centre_CZ, cluster_N, kind_C = pool(3)
    rng = np.random.default_rng(0)
    random = rng.choice(len(cluster_N), 200, replace=False)
    left = np.setdiff1d(np.arange(len(cluster_N)), random)
    concentrated = left[kind_C[cluster_N[left]] == 0][:150]
    assert not deficit_of(coverage_of(cluster_N, random, concentrated), centre_CZ, 0).speaks
    assert deficit_of(coverage_of(cluster_N, np.concatenate([random, concentrated])), centre_CZ, 0).speaks
    biased = rng.choice(np.flatnonzero(kind_C[cluster_N] < 5), 200, replace=False)
    filling = rng.choice(np.flatnonzero(kind_C[cluster_N] >= 5), 1000, replace=False)
    assert deficit_of(coverage_of(cluster_N, biased), centre_CZ, 0).speaks
    assert not deficit_of(coverage_of(cluster_N, biased, filling), centre_CZ, 0).speaks


@pytest.mark.heavy
def test_a_pool_without_its_uncertain_items_is_not_taken_for_another() -> None:
    spoken = []
    for seed in range(40):
        centre_CZ, cluster_N, kind_C = pool(seed)
        random = np.random.default_rng([seed, 1]).choice(len(cluster_N), 600, replace=False)
        left = np.setdiff1d(np.arange(len(cluster_N)), random)
        # Nearly all of two kinds is labelled for uncertainty.
        uncertain = left[kind_C[cluster_N[left]] < 2][:600]
        spoken.append(deficit_of(coverage_of(cluster_N, random, uncertain), centre_CZ, seed))
    assert sum(found.p < 0.025 for found in spoken) <= 4
    assert sum(found.speaks for found in spoken) <= 2


def test_many_clusters_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deficit, "MOST_COMPARED", 50)
    centre_CZ, cluster_N, kind_C = pool(0)
    drawn = np.random.default_rng(0).choice(np.flatnonzero(kind_C[cluster_N] < 5), 200, replace=False)
    assert deficit_of(coverage_of(cluster_N, drawn), centre_CZ, 0).speaks
    random = np.random.default_rng(0).choice(len(cluster_N), 200, replace=False)
    assert not deficit_of(coverage_of(cluster_N, random), centre_CZ, 0).speaks


def test_without_labels_or_a_rest_nothing_is_lacking() -> None:
    centre_CZ, cluster_N, _ = pool(0)
    everything, nothing = np.arange(len(cluster_N)), np.empty(0, np.intp)
    for drawn in (everything, nothing):
        assert deficit_of(coverage_of(cluster_N, drawn), centre_CZ, 0) == Deficit(0, 0, 1, 0)
    with pytest.raises(ValueError, match="a count of items is negative"):
        deficit_of(Coverage(np.array([1]), np.array([-1]), np.array([0])), centre_CZ[:1], 0)


def test_coarse_clusters_hold_a_few_labels_each() -> None:
    assert [num_coarse(size) for size in (0, 20, 50, 1000, 10**6)] == [4, 4, 10, 200, 200]


def test_a_pool_of_billions_is_judged_too() -> None:
    centre_CZ, cluster_N, kind_C = pool(0)
    huge_C = np.bincount(cluster_N, minlength=200) * 10**6
    for chosen, speaks in ((np.arange(len(cluster_N)), False), (np.flatnonzero(kind_C[cluster_N] < 5), True)):
        drawn_C = np.bincount(cluster_N[np.random.default_rng(0).choice(chosen, 300)], minlength=200)
        found = deficit_of(Coverage(huge_C, drawn_C, np.zeros(200, np.int64)), centre_CZ, 0)
        assert found.speaks == speaks
