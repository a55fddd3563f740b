"""Farthest-first traversal against a naive one, and its radius against the best there is."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from vaal.diversity import k_center
from vaal.diversity.k_center import BLOCK_ITEMS, k_center_greedy

Array = NDArray[np.float32]


def latents(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def distances(left: Array, right: Array) -> NDArray[np.float64]:
    return np.linalg.norm(left[:, None].astype(np.float64) - right[None], axis=2)


def naive(latent: Array, centers: Array, b: int) -> list[int]:
    """All distances again for every choice."""
    chosen: list[int] = []
    for _ in range(b):
        near = np.concatenate([centers, latent[chosen]])
        nearest = distances(latent, near).min(axis=1) if len(near) else np.full(len(latent), np.inf)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


@pytest.mark.parametrize("num_centers", [0, 1, 7])
def test_it_is_the_naive_traversal(num_centers: int) -> None:
    latent, centers = latents(60, 5), latents(num_centers, 5, seed=1)
    assert k_center_greedy(latent, centers, 60).tolist() == naive(latent, centers, 60)


def test_more_candidates_than_a_block() -> None:
    latent, centers = latents(2 * BLOCK_ITEMS + 5, 2), latents(3, 2, seed=1)
    latent[-1] = 100
    chosen = k_center_greedy(latent, centers, 5).tolist()
    assert chosen == naive(latent, centers, 5)
    assert chosen[0] == len(latent) - 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("num_centers", [0, 2])
def test_radius_is_at_most_twice_the_best(seed: int, num_centers: int) -> None:
    latent, centers, b = latents(11, 2, seed=seed), latents(num_centers, 2, seed=seed + 100), 3

    def radius(chosen: list[int]) -> float:
        return float(distances(latent, np.concatenate([centers, latent[chosen]])).min(axis=1).max())

    best = min(radius(list(chosen)) for chosen in combinations(range(len(latent)), b))
    assert best <= radius(k_center_greedy(latent, centers, b).tolist()) <= 2 * best * (1 + 1e-6)


def test_a_choice_keeps_away_from_the_centers() -> None:
    latent = np.array([[0.0], [1.0], [2.0], [9.0]], np.float32)
    assert k_center_greedy(latent, np.array([[9.5]], np.float32), 2).tolist() == [0, 2]
    assert k_center_greedy(latent, np.empty((0, 1), np.float32), 2).tolist() == [0, 3]


def test_ties_go_to_the_lowest_index_and_duplicates_are_chosen_once_each() -> None:
    latent = np.array([[0.0], [5.0], [-5.0], [5.0], [0.0]], np.float32)
    centers = np.array([[0.0]], np.float32)
    assert k_center_greedy(latent, centers, 5).tolist() == [1, 2, 0, 3, 4]


def test_near_duplicates_far_from_the_origin_are_told_apart() -> None:
    # By |x|^2 + |y|^2 - 2xy in float32 all these distances would be 0.
    latent = np.array([[4096.0, 4096.0], [4096.0, 4096.25], [4096.0, 4096.5]], np.float32)
    assert k_center_greedy(latent, latent[:1], 3).tolist() == [2, 1, 0]


@pytest.mark.parametrize("b", [0, 5])
def test_a_wrong_b_is_refused(b: int) -> None:
    with pytest.raises(ValueError, match=f"b must be from 1 to 4, got {b}"):
        k_center_greedy(latents(4, 2), latents(1, 2), b)


def test_a_latent_that_is_not_finite_is_refused() -> None:
    for bad in (np.nan, np.inf):
        broken = latents(4, 2)
        broken[2, 1] = bad
        with pytest.raises(ValueError, match="1 of 4 candidate latents are not finite"):
            k_center_greedy(broken, latents(1, 2), 1)
        with pytest.raises(ValueError, match="1 of 4 center latents are not finite"):
            k_center_greedy(latents(3, 2), broken, 1)


def test_bounds_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Repeated, nearly repeated and far points, rounded as committed latents are, where a wrong bound would show.
    random = np.random.default_rng(0)
    latent = np.repeat(latents(150, 6).astype(np.float16), 4, axis=0).astype(np.float32) + 30
    latent[::5] += 2.0**-18 * random.integers(3, size=(120, 6)).astype(np.float32)
    centers = np.concatenate([latent[::40], latents(700, 6, seed=1)])
    squared = ((latent[:, None] - centers) ** 2).sum(axis=2).min(axis=1)
    expected: list[int] = []
    for _ in range(600):
        expected.append(int(squared.argmax()))
        squared = np.minimum(squared, ((latent - latent[expected[-1]]) ** 2).sum(axis=1))
        squared[expected[-1]] = -1
    for name, value in (("BLOCK_VALUES", 700), ("BLOCK_ITEMS", 13), ("CENTERS_AT_ONCE", 64)):
        assert k_center_greedy(latent, centers, 600).tolist() == expected
        monkeypatch.setattr(k_center, name, value)
    assert k_center_greedy(latent, centers, 600).tolist() == expected


def test_bounds_that_overflow_change_nothing() -> None:
    latent = np.array([[2e19], [2e19], [-2e19]], np.float32)
    with np.errstate(all="ignore"):
        assert k_center_greedy(latent, latent[:0], 3).tolist() == [0, 2, 1]
