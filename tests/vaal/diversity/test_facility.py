"""Facility location against its definition, the optimum by brute force, and the two rounds against one."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from vaal.diversity import Choice, facility
from vaal.diversity.facility import MOST_PICKS, two_round_cover

Array = NDArray[np.float32]
NONE_TAKEN = np.empty((0, 3), np.float32)


def greedy_cover(latent: Array, taken: Array, b: int, seed: int) -> Choice:
    return two_round_cover(latent, taken, b, seed, num_parts=1)


def latents(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def modes(num_items: int, num_modes: int, seed: int = 0) -> Array:
    """Far modes of unequal size."""
    random = np.random.default_rng(seed)
    middle = 4 * random.normal(size=(num_modes, 3))
    mode = random.choice(num_modes, num_items, p=random.dirichlet(np.ones(num_modes)))
    return (middle[mode] + 0.5 * random.normal(size=(num_items, 3))).astype(np.float32)


def median_distance(latent: Array, seed: int) -> float:
    """As documented: of pairs drawn by the seed, those of one point with itself left out."""
    first, second = latent[np.random.default_rng(seed).integers(len(latent), size=(2, 10_000))].astype(np.float64)
    distance = np.linalg.norm(first - second, axis=1)
    return float(np.median(distance[distance > 0]))


def objective(latent: Array, centers: Array, scale: float) -> float:
    """The definition, in float64."""
    apart = np.linalg.norm(latent[:, None].astype(np.float64) - centers[None], axis=2)
    return float(np.exp(-((apart / scale) ** 2)).max(axis=1, initial=0).mean())


def naive(latent: Array, taken: Array, b: int, seed: int) -> list[int]:
    scale = median_distance(latent, seed)
    chosen: list[int] = []
    for _ in range(b):
        values = [
            -1.0 if item in chosen else objective(latent, np.concatenate([taken, latent[[*chosen, item]]]), scale)
            for item in range(len(latent))
        ]
        chosen.append(int(np.argmax(values)))
    return chosen


# Later choices tie: of two candidates that are alone, each covers the other as well as itself.
@pytest.mark.parametrize(("num_taken", "b"), [(0, 12), (4, 5)])
def test_lazy_greedy_is_the_naive_greedy(num_taken: int, b: int) -> None:
    latent, taken = latents(60, 3), latents(num_taken, 3, seed=1)
    cover = greedy_cover(latent, taken, b, seed=5)
    assert cover.picked_B.tolist() == naive(latent, taken, b, seed=5)
    covering = np.concatenate([taken, latent[cover.picked_B]])
    assert cover.objective == pytest.approx(objective(latent, covering, median_distance(latent, 5)), abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("num_taken", [0, 2])
def test_greedy_gains_at_least_1_minus_1_over_e_of_the_best(seed: int, num_taken: int) -> None:
    latent, taken, b = latents(11, 3, seed=seed), latents(num_taken, 3, seed=seed + 100), 3
    scale = median_distance(latent, seed)
    nothing = objective(latent, taken, scale)
    best = max(
        objective(latent, np.concatenate([taken, latent[list(chosen)]]), scale)
        for chosen in combinations(range(len(latent)), b)
    )
    found = greedy_cover(latent, taken, b, seed).objective
    assert (1 - 1 / np.e) * (best - nothing) - 1e-6 <= found - nothing <= best - nothing + 1e-6


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_parts", [2, 7, 40])
def test_two_rounds_reach_nearly_what_one_does(seed: int, num_parts: int) -> None:
    latent = modes(400, 30, seed)
    one = greedy_cover(latent, NONE_TAKEN, 20, seed).objective
    two = two_round_cover(latent, NONE_TAKEN, 20, seed, num_parts)
    assert len(set(two.picked_B.tolist())) == 20
    assert 0.95 * one <= two.objective <= one * (1 + 0.05)


@pytest.mark.parametrize(("b", "best"), [(2, 0.9), (20, 0.5)])
def test_the_better_of_the_union_and_the_parts_that_have_b_wins(
    b: int, best: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three parts of ten, and their union.
    values = iter([0.3, 0.9, 0.2, 0.5])
    monkeypatch.setattr(facility, "_greedy", lambda task, part, b: facility.Choice(part[:b], next(values)))
    cover = two_round_cover(latents(30, 3), NONE_TAKEN, b, 0, num_parts=3)
    assert cover.objective == best
    assert len(cover.picked_B) == b


def test_what_is_taken_is_not_covered_again() -> None:
    latent = np.repeat(np.array([[0, 0, 0], [5, 0, 0], [0, 5, 0]], np.float32), [6, 3, 2], axis=0)
    assert greedy_cover(latent, NONE_TAKEN, 3, 0).picked_B.tolist() == [0, 6, 9]
    assert greedy_cover(latent, latent[:1], 2, 0).picked_B.tolist() == [6, 9]


def test_duplicates_are_chosen_once_each_by_index() -> None:
    assert greedy_cover(np.ones((5, 3), np.float32), NONE_TAKEN, 5, 0).picked_B.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("scale", "shift"), [(8.0, 0.0), (1.0, 4096.0)])
def test_scale_and_shift_do_not_matter(scale: float, shift: float) -> None:
    latent = modes(300, 10)
    moved = (scale * latent + shift).astype(np.float32)
    expected = greedy_cover(latent, NONE_TAKEN, 15, 0).objective
    assert greedy_cover(moved, NONE_TAKEN, 15, 0).objective == pytest.approx(expected, rel=1e-3)


def test_more_candidates_than_the_ground_set(monkeypatch: pytest.MonkeyPatch) -> None:
    latent = modes(2000, 8)
    whole = greedy_cover(latent, NONE_TAKEN, 12, 3)
    monkeypatch.setattr(facility, "MOST_GROUND", 500)
    drawn = greedy_cover(latent, NONE_TAKEN, 12, 3)
    assert drawn.picked_B.tolist() == greedy_cover(latent, NONE_TAKEN, 12, 3).picked_B.tolist()
    scale = median_distance(latent, 3)
    reached = [objective(latent, latent[cover.picked_B], scale) for cover in (whole, drawn)]
    assert reached[1] >= 0.95 * reached[0]


@pytest.mark.parametrize("b", [0, 5])
def test_a_wrong_b_is_refused(b: int) -> None:
    with pytest.raises(ValueError, match=f"b of facility must be from 1 to 4, got {b}"):
        greedy_cover(latents(4, 3), NONE_TAKEN, b, 0)


def test_more_picks_than_the_ground_set_is_good_for_are_refused() -> None:
    with pytest.raises(ValueError, match=f"b of facility must be from 1 to {MOST_PICKS}, got {MOST_PICKS + 1}"):
        two_round_cover(latents(MOST_PICKS + 1, 3), NONE_TAKEN, MOST_PICKS + 1, 0, 2)


def test_a_latent_that_is_not_finite_is_refused() -> None:
    broken = latents(4, 3)
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 4 candidate latents are not finite"):
        greedy_cover(broken, NONE_TAKEN, 1, 0)
    with pytest.raises(ValueError, match="1 of 4 taken latents are not finite"):
        greedy_cover(latents(4, 3), broken, 1, 0)
