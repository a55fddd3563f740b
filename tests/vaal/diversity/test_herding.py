"""Herding against its definition and an independent implementation, its weights, and the width of its kernel."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.classified import cifar10
from vaal.diversity import MOST_COVERING, facility
from vaal.diversity import herding as module
from vaal.diversity.herding import FIRST_SIGMA, LEAST_SIGMA, herding, sigma_of, uherding, unit

Array = NDArray[np.float32]
Wide = NDArray[np.float64]
NONE_TAKEN = np.empty((0, 4), np.float32)


def latents(*shape: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).normal(size=shape) + 0.3).astype(np.float32)


def distances(left: Wide, right: Wide) -> Wide:
    return np.linalg.norm(left[:, None] - right[None], axis=2)


def directions(latent: Array) -> Wide:
    wide = latent.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def width(taken: Array) -> float:
    """As documented, for taken items that are distinct."""
    if len(taken) < 2:
        return 1.0
    apart = distances(directions(taken), directions(taken))
    nearest = np.where(np.eye(len(taken)) > 0, np.inf, apart).min(axis=1)
    return float(np.quantile(nearest[nearest >= 0.1 * np.median(nearest)], 0.1))


def naive(latent: Array, taken: Array, reference: Array, weight: Wide, b: int) -> tuple[list[int], float]:
    """The definition, in float64, and f."""
    kernel = np.exp(-((distances(directions(latent), directions(reference)) / width(taken)) ** 2))
    covered = np.exp(-((distances(directions(taken), directions(reference)) / width(taken)) ** 2)).max(
        axis=0, initial=0
    )
    chosen: list[int] = []
    for _ in range(b):
        gain = np.maximum(kernel - covered, 0) @ weight
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = np.maximum(covered, kernel[chosen[-1]])
    return chosen, float(covered @ weight / weight.sum())


@pytest.mark.parametrize(("num_taken", "b"), [(0, 12), (1, 12), (25, 12)])
def test_it_covers_the_sample_as_its_definition_does(num_taken: int, b: int) -> None:
    latent, taken, sample = latents(80, 4), latents(num_taken, 4, seed=1), latents(150, 4, seed=2)
    expected, reached = naive(latent, taken, sample, np.ones(150), b)
    found = herding(latent, taken, sample, b, 0)
    assert found.picked_B.tolist() == expected
    assert found.objective == pytest.approx(reached, abs=1e-6)


@pytest.mark.parametrize("num_taken", [0, 25])
def test_it_covers_the_candidates_by_their_worth_as_its_definition_does(num_taken: int) -> None:
    latent, taken = latents(80, 4), latents(num_taken, 4, seed=1)
    worth = 1e9 * np.random.default_rng(3).uniform(size=80) ** 4
    expected, reached = naive(latent, taken, latent, worth, 12)
    found = uherding(latent, taken, worth, 12, 0)
    assert found.picked_B.tolist() == expected
    assert found.objective == pytest.approx(reached, abs=1e-6)
    assert expected != naive(latent, taken, latent, np.ones(80), 12)[0]


@pytest.mark.heavy
@pytest.mark.parametrize("num_labelled", [0, 60])
def test_it_is_that_of_scikit_activeml(num_labelled: int) -> None:
    pool = pytest.importorskip("skactiveml.pool")
    found = cifar10(500, 500)
    labelled = found.labelled_LD[:num_labelled]
    x, y = np.concatenate([labelled, found.feature_MD]), np.full(num_labelled + 500, np.nan)
    y[:num_labelled] = found.class_L[:num_labelled]
    strategy = pool.MaxHerding(metric_dict={"gamma": width(labelled) ** -2}, random_state=0)
    expected = strategy.query(x, y, batch_size=40) - num_labelled
    assert herding(found.feature_MD, labelled, found.feature_MD, 40, 0).picked_B.tolist() == expected.tolist()


def test_without_any_worth_all_count_alike() -> None:
    latent, taken = latents(60, 4), latents(5, 4, seed=1)
    alike = uherding(latent, taken, np.ones(60), 10, 0)
    assert uherding(latent, taken, np.zeros(60), 10, 0).picked_B.tolist() == alike.picked_B.tolist()
    assert herding(latent, taken, latent, 10, 0).picked_B.tolist() == alike.picked_B.tolist()


def test_lengths_of_latents_do_not_matter() -> None:
    latent, taken, sample = latents(60, 4), latents(5, 4, seed=1), latents(90, 4, seed=2)
    stretched = latent * np.float32(2) ** np.random.default_rng(0).integers(-3, 4, size=(60, 1))
    expected = herding(latent, taken, sample, 10, 0).picked_B.tolist()
    assert herding(stretched.astype(np.float32), 8 * taken, sample / 4, 10, 0).picked_B.tolist() == expected
    assert unit(np.zeros((2, 4), np.float32)).tolist() == [[0.0] * 4] * 2


def test_the_width_of_the_kernel() -> None:
    taken = unit(latents(200, 4))
    assert sigma_of(taken, 0) == pytest.approx(width(taken), rel=1e-6)
    assert sigma_of(taken[:1], 0) == sigma_of(taken[:0], 0) == FIRST_SIGMA
    # The same item again does not count, and nearly the same one does not either.
    assert sigma_of(np.concatenate([taken, taken]), 0) == sigma_of(taken, 0)
    for few in (taken[:4], taken[:10], taken):
        pair = np.concatenate([few, unit(few[:1] + np.float32(1e-3))])
        assert sigma_of(pair, 0) == pytest.approx(sigma_of(few, 0), rel=0.35)
    # More labels make it narrower.
    assert sigma_of(unit(latents(2000, 4)), 0) < sigma_of(taken, 0) < sigma_of(taken[:20], 0)
    assert sigma_of(unit(np.ones((9, 4), np.float32) + latents(9, 4) * np.float32(1e-5)), 0) == LEAST_SIGMA


def test_of_many_taken_items_and_candidates_a_sample_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    latent, taken, worth = latents(900, 4), latents(600, 4, seed=1), np.random.default_rng(3).uniform(size=900)
    whole = uherding(latent, taken, worth, 10, 4).objective or 0
    # Blocks do not show.
    monkeypatch.setattr(module, "BLOCK_ITEMS", 7)
    assert sigma_of(unit(taken), 0) == pytest.approx(width(taken), rel=1e-6)
    monkeypatch.setattr(module, "MOST_SCALED", 300)
    assert width(taken) < sigma_of(unit(taken), 0) < 1.5 * width(taken)
    monkeypatch.setattr(module, "MOST_SCALED", 600)
    monkeypatch.setattr(module, "MOST_GROUND", 400)
    found = uherding(latent, taken, worth, 10, 4)
    assert found.picked_B.tolist() == uherding(latent, taken, worth, 10, 4).picked_B.tolist()
    assert found.picked_B.tolist() != uherding(latent, taken, worth, 10, 5).picked_B.tolist()
    assert found.objective == pytest.approx(whole, rel=0.2)


def test_parts_reach_nearly_what_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    latent, taken, sample = latents(400, 4), latents(9, 4, seed=1), latents(500, 4, seed=2)
    whole = herding(latent, taken, sample, 20, 0).objective or 0
    monkeypatch.setattr(facility, "PART_ITEMS", 60)
    assert herding(latent, taken, sample, 20, 0).objective == pytest.approx(whole, rel=0.03)


def test_what_it_cannot_do_is_refused_by_name() -> None:
    latent, worth = latents(MOST_COVERING + 9, 4), np.ones(MOST_COVERING + 9)
    most = MOST_COVERING
    with pytest.raises(ValueError, match=f"b of herding must be from 1 to {most}, got {most + 1}"):
        herding(latent, NONE_TAKEN, latent, most + 1, 0)
    with pytest.raises(ValueError, match=f"b of uherding must be from 1 to {most}, got {most + 1}"):
        uherding(latent, NONE_TAKEN, worth, most + 1, 0)
    with pytest.raises(ValueError, match="herding has no sample of the pool to cover"):
        herding(latent, NONE_TAKEN, NONE_TAKEN, 3, 0)
    worth[4] = -2
    with pytest.raises(ValueError, match=f"1 of {most + 9} worths are negative, least -2"):
        uherding(latent, NONE_TAKEN, worth, 3, 0)
    broken = latents(5, 4)
    broken[1, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 5 sampled latents are not finite"):
        herding(latent, NONE_TAKEN, broken, 3, 0)
    with pytest.raises(ValueError, match="1 of 5 taken latents are not finite"):
        uherding(latent, broken, np.ones(len(latent)), 3, 0)
