"""Every diversifier behind one call, and the clusters that are the same on every machine."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from engine.pool.identity import draw_of
from engine.selection import diversify
from engine.selection.diversify import Material, choose, cluster
from engine.tables.scores import latents_of
from vaal.diversity import DIVERSIFIERS, mini_batches
from vaal.diversity.gumbel import gumbel_top_b

NUM_LATENTS = 4


def table(num_items: int, seed: int = 0) -> pa.Table:
    """Items in the order of (logit, shard, key), their latents in a few modes."""
    random = np.random.default_rng(seed)
    latent = 3 * random.integers(3, size=(num_items, 1)) + random.normal(size=(num_items, NUM_LATENTS))
    flat = pa.array(latent.astype(np.float16).ravel(), pa.float16())
    return pa.table(
        {
            "shard": [f"{i % 3}.tar" for i in range(num_items)],
            "key": [f"{i:04d}" for i in range(num_items)],
            "score": pa.array(np.sort(random.normal(size=num_items)).astype(np.float32)),
            "predicted": pa.array(random.integers(4, size=num_items).astype(np.int32)),
            "latent": pa.FixedSizeListArray.from_arrays(flat, NUM_LATENTS),
            "feature": pa.FixedSizeListArray.from_arrays(flat, NUM_LATENTS),
        }
    )


def answers(feature_MD: NDArray[np.float32]) -> NDArray[np.float32]:
    """p - onehot(p) of three classes, by a fixed head."""
    logit_MC = feature_MD @ np.random.default_rng(5).normal(size=(NUM_LATENTS, 3)).astype(np.float32)
    p_MC = np.exp(logit_MC - logit_MC.max(axis=1, keepdims=True))
    p_MC /= p_MC.sum(axis=1, keepdims=True)
    return p_MC - np.eye(3, dtype=np.float32)[p_MC.argmax(axis=1)]


def material(candidates: pa.Table, taken: pa.Table, cluster_M: NDArray[np.int32]) -> Material:
    return Material(candidates, taken, cluster_M, table(30, seed=2), taken, answers, 4.0)


CANDIDATES, TAKEN = table(80), table(20, seed=1)
CLUSTERS = cluster(latents_of(CANDIDATES), 0)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not depend on how good a fit is."""
    monkeypatch.setattr(mini_batches, "STEPS", 8)


@pytest.mark.parametrize("method", DIVERSIFIERS)
@pytest.mark.parametrize("b", [0, 1, 7, 80])
@pytest.mark.parametrize("num_taken", [0, 20])
def test_b_candidates_are_chosen_once_each_and_again_the_same(method: str, b: int, num_taken: int) -> None:
    first, again = (choose(method, material(CANDIDATES, TAKEN.slice(0, num_taken), CLUSTERS), b, 5) for _ in range(2))
    assert first.picked_B.tolist() == again.picked_B.tolist()
    assert first.picked_B.dtype == np.intp
    assert len(set(first.picked_B.tolist())) == len(first.picked_B) == b
    assert set(first.picked_B.tolist()) <= set(range(80))
    assert (first.objective is not None) == (method in {"facility", "herding", "uherding"} and b > 0)


@pytest.mark.parametrize("method", DIVERSIFIERS)
@pytest.mark.parametrize("b", [-1, 81])
def test_a_wrong_b_is_refused(method: str, b: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to the 80 candidates, got {b}"):
        choose(method, material(CANDIDATES, TAKEN, CLUSTERS), b, 0)


@pytest.mark.parametrize("method", DIVERSIFIERS)
def test_of_no_candidates_none_are_chosen(method: str) -> None:
    assert choose(method, material(CANDIDATES.slice(0, 0), TAKEN, CLUSTERS[:0]), 0, 0).picked_B.tolist() == []


def test_none_is_the_head_and_the_others_are_not() -> None:
    heads = {
        name
        for name in DIVERSIFIERS
        if choose(name, material(CANDIDATES, TAKEN, CLUSTERS), 20, 0).picked_B.tolist() == [*range(20)]
    }
    assert heads == {"none", "completion"}


@pytest.mark.parametrize("method", ["k_center", "facility", "mini_batches"])
def test_what_is_taken_changes_the_choice(method: str) -> None:
    with_taken, without = (
        choose(method, material(CANDIDATES, taken, CLUSTERS), 20, 0) for taken in (TAKEN, TAKEN.slice(0, 0))
    )
    assert with_taken.picked_B.tolist() != without.picked_B.tolist()


@pytest.mark.parametrize("method", ["gumbel", "facility", "mini_batches"])
def test_the_seed_changes_the_choice(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaal.diversity.facility.PART_ITEMS", 30)
    picks = [choose(method, material(CANDIDATES, TAKEN, CLUSTERS), 10, seed).picked_B.tolist() for seed in range(4)]
    assert len(set(map(tuple, picks))) > 1


def test_gumbel_draws_by_the_identity_of_an_item() -> None:
    draws = [draw_of(f"{i % 3}.tar", f"{i:04d}", 9) for i in range(80)]
    expected = gumbel_top_b(CANDIDATES["score"].to_numpy(), np.array(draws, np.uint64), 10)
    assert choose("gumbel", material(CANDIDATES, TAKEN, CLUSTERS), 10, 9).picked_B.tolist() == expected.tolist()


def test_clusters_take_turns() -> None:
    picked = choose("clusters", material(CANDIDATES, TAKEN, CLUSTERS), CLUSTERS.max() + 1, 0).picked_B
    assert sorted(CLUSTERS[picked]) == list(range(CLUSTERS.max() + 1))


def test_latents_of_a_slice_of_several_chunks() -> None:
    whole = latents_of(CANDIDATES)
    assert whole.shape == (80, NUM_LATENTS)
    assert whole[3].tolist() == CANDIDATES["latent"][3].as_py()
    parts = pa.concat_tables([CANDIDATES.slice(10, 20), CANDIDATES.slice(50, 5)])
    assert (latents_of(parts) == np.concatenate([whole[10:30], whole[50:55]])).all()
    assert latents_of(CANDIDATES.slice(0, 0)).shape == (0, NUM_LATENTS)


def blobs(num_items: int, num_modes: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    random = np.random.default_rng(seed)
    mode = random.integers(num_modes, size=num_items)
    latent = 100 * random.normal(size=(num_modes, NUM_LATENTS))[mode] + random.normal(size=(num_items, NUM_LATENTS))
    return latent.astype(np.float32), mode


def test_a_cluster_is_of_one_mode_and_clusters_are_numbered_by_their_first_members() -> None:
    latent, mode = blobs(400, 4)
    found = cluster(latent, 0)
    assert found.dtype == np.int32
    names, first = np.unique(found, return_index=True)
    assert names.tolist() == list(range(len(names)))
    assert (np.diff(first) > 0).all()
    assert 4 <= len(names) <= 20
    assert all(len(set(mode[found == name])) == 1 for name in names)


def test_no_more_clusters_than_distinct_points() -> None:
    latent = np.repeat(np.array([[0.0, 1], [0, 2], [5, 5]], np.float32), 30, axis=0)
    latent[::2, 0] *= -1  # -0 is 0; 5 and -5 differ.
    assert len(set(cluster(latent, 0).tolist())) == 4
    assert cluster(np.ones((50, 3), np.float32), 0).tolist() == [0] * 50
    assert cluster(np.ones((1, 3), np.float32), 0).tolist() == [0]
    assert cluster(np.ones((0, 3), np.float32), 0).tolist() == []


def test_clusters_of_a_latent_that_is_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        cluster(np.array([[0.0], [np.nan], [1.0]], np.float32), 0)


def test_clusters_of_more_candidates_than_are_fitted_or_assigned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    latent, mode = blobs(900, 3)
    monkeypatch.setattr(diversify, "MOST_FITTED", 300)
    monkeypatch.setattr(diversify, "ASSIGNED_AT_ONCE", 70)
    monkeypatch.setattr(diversify, "MOST_CLUSTERS", 6)
    found = cluster(latent, 1)
    assert len(found) == 900
    assert found.max() < 6
    assert all(len(set(mode[found == name])) == 1 for name in set(found.tolist()))


def test_a_method_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def look(b: int) -> diversify.Choice:
        seen.extend(library["num_threads"] for library in threadpool_info())
        return diversify.Choice(np.arange(b))

    monkeypatch.setattr("vaal.ranking.first", look)
    with threadpool_limits(2):
        choose("none", material(CANDIDATES, TAKEN, CLUSTERS), 1, 0)
    assert set(seen) == {1}


@pytest.mark.heavy
def test_the_number_of_threads_does_not_matter() -> None:
    candidates, taken = table(5000), table(50, seed=1)

    def chosen(num_threads: int) -> list[list[int]]:
        torch.set_num_threads(num_threads)
        with threadpool_limits(num_threads):
            clusters = cluster(latents_of(candidates), 3)
            picks = [
                choose(name, material(candidates, taken, clusters), 60, 3).picked_B.tolist() for name in DIVERSIFIERS
            ]
            assert torch.get_num_threads() == num_threads
        return [clusters.tolist(), *picks]

    before = torch.get_num_threads()
    try:
        assert chosen(1) == chosen(2)
    finally:
        torch.set_num_threads(before)
