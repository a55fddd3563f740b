"""Mini-batches leave a mode once it is chosen from, where the plain lowest logits stay in it."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vaal.diversity import mini_batches
from vaal.diversity.mini_batches import NUM_MINI_BATCHES, choose_in_mini_batches

Array = NDArray[np.float32]
MODES = np.array([[8, 0, 0, 0], [0, 8, 0, 0], [0, 0, 8, 0], [0, 0, 0, 0]], np.float32)
"""The labelled items are at the last."""


def pool(per_mode: int = 150, num_taken: int = 100, seed: int = 0) -> tuple[Array, Array, Array]:
    """Logits, latents and the latents of the labelled items. The lowest logits are those of mode 0, by little."""
    random = np.random.default_rng(seed)
    latent = np.repeat(MODES, per_mode, axis=0) + 0.5 * random.normal(size=(4 * per_mode, 4))
    logit = np.repeat([-5.0, -4.5, -4.0, 1.0], per_mode) + 0.1 * random.random(4 * per_mode)
    taken = MODES[3] + 0.5 * random.normal(size=(num_taken, 4))
    return logit.astype(np.float32), latent.astype(np.float32), taken.astype(np.float32)


def per_mode(picked: NDArray[np.intp], size: int = 150) -> list[int]:
    return np.bincount(picked // size, minlength=4).tolist()


@pytest.mark.heavy
@pytest.mark.parametrize("num_taken", [0, 100])
def test_all_modes_without_labels_are_covered(num_taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_batches, "STEPS", 60)
    logit, latent, taken = pool(num_taken=num_taken)
    assert per_mode(np.argsort(logit)[:100]) == [100, 0, 0, 0]
    counts = per_mode(choose_in_mini_batches(logit, latent, taken, 100, 0))
    assert min(counts[:3]) >= 10
    if num_taken:
        # Nothing, or nearly nothing, is bought of what the labels cover.
        assert counts[3] <= 10


def test_the_first_mini_batch_is_the_lowest_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_batches, "STEPS", 10)
    logit, latent, taken = pool()
    order = np.random.default_rng(1).permutation(len(logit))
    picked = choose_in_mini_batches(logit[order], latent[order], taken, 45, 0)
    assert picked[:5].tolist() == np.argsort(logit[order], kind="stable")[:5].tolist()
    assert picked[5:].tolist() != np.argsort(logit[order], kind="stable")[5:45].tolist()


@pytest.mark.parametrize("b", [1, 9, 10, 37, 40])
def test_none_is_chosen_twice_and_the_mini_batches_make_up_b(b: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []

    def rescored(labelled: torch.Tensor, unlabelled: torch.Tensor, seed: list[int]) -> Array:
        left.append(len(unlabelled))
        assert len(labelled) + len(unlabelled) == 40 + 7
        return -unlabelled[:, 0].numpy()

    monkeypatch.setattr(mini_batches, "_rescored", rescored)
    logit, latent, taken = pool(per_mode=10, num_taken=7)
    picked = choose_in_mini_batches(logit, latent, taken, b, 0)
    assert len(set(picked.tolist())) == len(picked) == b
    sizes = -np.diff([40, *left, 40 - b])
    assert sizes.sum() == b
    assert len(sizes) == min(b, NUM_MINI_BATCHES)
    assert sizes.max() - sizes.min() <= 1


def test_each_fit_knows_all_choices_before_it_and_takes_the_lowest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_batches, "_rescored", lambda labelled, unlabelled, seed: unlabelled[:, 0].numpy())
    logit, latent, taken = pool(per_mode=10)
    picked = choose_in_mini_batches(logit, latent, taken, 40, 0)
    assert (np.diff(latent[picked[4:], 0]) >= 0).all()


def test_equal_candidates_go_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_batches, "STEPS", 2)
    same = np.ones((3000, 4), np.float32)
    with np.errstate(invalid="raise"):
        picked = choose_in_mini_batches(np.tile(np.array([1, 0], np.float32), 1500), same, same[:3], 3000, 0)
    assert picked[:300].tolist() == list(range(1, 600, 2))
    assert picked[300:].tolist() == [*range(0, 600, 2), *range(600, 3000)]


def test_it_is_a_function_of_the_seed_and_leaves_the_global_generator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_batches, "STEPS", 5)
    made = pool(per_mode=30)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = choose_in_mini_batches(*made, 30, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert choose_in_mini_batches(*made, 30, 3).tolist() == first.tolist()
    assert choose_in_mini_batches(*made, 30, 4).tolist() != first.tolist()


def test_scale_and_shift_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_batches, "STEPS", 10)
    logit, latent, taken = pool(per_mode=30)
    expected = choose_in_mini_batches(logit, latent, taken, 40, 0)
    moved = choose_in_mini_batches(logit, 1024 * latent, 1024 * taken, 40, 0)
    assert moved.tolist() == expected.tolist()
    shifted = choose_in_mini_batches(logit, 0.01 * latent - 3, 0.01 * taken - 3, 40, 0)
    assert len(set(shifted.tolist()) & set(expected.tolist())) >= 36


@pytest.mark.parametrize("b", [-1, 41])
def test_a_wrong_b_is_refused(b: int) -> None:
    with pytest.raises(ValueError, match=f"b must be from 0 to 40, got {b}"):
        choose_in_mini_batches(*pool(per_mode=10), b, 0)


@pytest.mark.parametrize("number", range(3))
def test_what_is_not_finite_is_refused(number: int) -> None:
    made = pool(per_mode=10, num_taken=40)
    made[number].flat[0] = np.nan
    name = ("candidate logits", "candidate latents", "taken latents")[number]
    with pytest.raises(ValueError, match=f"1 of 40 {name} are not finite"):
        choose_in_mini_batches(*made, 5, 0)
