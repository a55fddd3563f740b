"""Embeddings keep their own distances on one scale, and a latent is the same to the last bit wherever it is made."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from vaal.standardise import MOST_LATENTS, Standardiser


def vectors(length: int, num_items: int = 500, rank: int | None = None) -> Tensor:
    """Embeddings whose directions vary from 1 to a hundredth, around a mean that is not 0."""
    rng, rank = np.random.default_rng(0), min(length, rank or length)
    rotation, _ = np.linalg.qr(rng.normal(size=(length, length)))
    hidden = rng.normal(size=(num_items, rank)) * np.logspace(0, -2, rank)
    return torch.tensor(hidden @ rotation[:rank] + rng.normal(size=length), dtype=torch.float32)


@pytest.mark.parametrize("length", [3, 20, MOST_LATENTS])
def test_latents_have_the_embeddings_own_distances_up_to_one_scale(length: int) -> None:
    v_ND = vectors(length)
    made = Standardiser.fit(v_ND)
    latent_NZ = made(v_ND)
    assert latent_NZ.dtype == torch.float32
    torch.testing.assert_close(torch.pdist(latent_NZ), made.factor * torch.pdist(v_ND), atol=0, rtol=1e-3)
    assert float(latent_NZ.double().square().mean()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(latent_NZ.mean(dim=0), torch.zeros(length), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("length", "num_items"), [(300, 500), (300, 60), (129, 129)])
def test_of_long_embeddings_the_directions_of_largest_variance_stay(length: int, num_items: int) -> None:
    v_ND = vectors(length, num_items, rank=40)
    made = Standardiser.fit(v_ND)
    latent_NZ = made(v_ND)
    assert latent_NZ.shape == (num_items, MOST_LATENTS)
    torch.testing.assert_close(torch.pdist(latent_NZ), made.factor * torch.pdist(v_ND), atol=0, rtol=1e-3)
    variance_Z = latent_NZ.double().var(dim=0)
    assert (variance_Z.diff() < 1e-6).all()
    assert not latent_NZ[:, 40:].any()


def test_what_is_left_out_varies_least() -> None:
    v_ND = vectors(400)
    latent_NZ = Standardiser.fit(v_ND)(v_ND).double()
    values = np.linalg.svd((v_ND.double() - v_ND.double().mean(0)).numpy(), compute_uv=False)[:MOST_LATENTS]
    expected = torch.from_numpy(values / np.sqrt((values**2).mean()))
    found = latent_NZ.norm(dim=0)
    torch.testing.assert_close(found / found.square().mean().sqrt(), expected, atol=0, rtol=1e-3)


@pytest.mark.parametrize("length", [5, 200, 1536])
def test_an_item_has_the_same_bits_in_any_batch_order_and_number_of_threads(length: int) -> None:
    v_ND = vectors(length, 199)
    made = Standardiser.fit(v_ND)
    whole = made(v_ND)
    for size in (1, 7, 64):
        assert torch.equal(torch.cat([made(part) for part in v_ND.split(size)]), whole)
    order = torch.randperm(199, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made(v_ND[order]), whole[order])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made(v_ND), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(made(v_ND), whole)
    finally:
        torch.set_num_threads(threads)


def test_latents_are_exact_sums_of_whole_numbers() -> None:
    v_ND = vectors(200, 3)
    made = Standardiser.fit(v_ND)
    steps = ((v_ND - made.mean_D) / made.step).round().long().tolist()
    weights = made.directions_ZD.long().tolist()
    exact = [[sum(a * b for a, b in zip(row, weight, strict=True)) for weight in weights] for row in steps]
    assert 2**30 < max(abs(value) for row in exact for value in row) < 2**53
    assert made._products(v_ND).long().tolist() == exact


def test_a_component_that_hardly_varies_stays_small() -> None:
    v_ND = vectors(5)
    v_ND[:, 4] = 3.0
    v_ND[0, 4] += 1e-3
    latent_NZ = Standardiser.fit(v_ND)(v_ND)
    assert latent_NZ[:, 4].abs().max() < 0.01


def test_one_embedding_alone_equal_ones_and_far_ones_are_finite() -> None:
    for v_ND in (vectors(3)[:1], torch.full((4, 3), 0.1), torch.zeros(2, 300), vectors(200)):
        made = Standardiser.fit(v_ND)
        assert torch.isfinite(made(v_ND)).all()
        assert torch.isfinite(made(torch.full_like(v_ND, 3e38))).all()


def test_the_constants_go_through_a_file_and_are_the_same_each_time(tmp_path: Path) -> None:
    v_ND = vectors(300)
    made = Standardiser.fit(v_ND)
    state = {name: tensor.float().contiguous() for name, tensor in made.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "embedding.safetensors")
    loaded = Standardiser.of(safetensors.torch.load_file(tmp_path / "embedding.safetensors"))
    assert torch.equal(loaded(v_ND), made(v_ND))
    assert torch.equal(Standardiser.fit(v_ND)(v_ND), made(v_ND))
    weights = made.directions_ZD
    assert (weights.gather(1, weights.abs().argmax(dim=1, keepdim=True)) > 0).all()


def test_one_broken_vector_does_not_decide_the_scale_of_all_others() -> None:
    v_ND = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    broken_ND = torch.cat([v_ND, torch.full((1, 8), 1e30)])
    made, alone = Standardiser.fit(broken_ND), Standardiser.fit(v_ND)
    torch.testing.assert_close(made(v_ND), alone(v_ND))
    assert torch.isfinite(made(broken_ND)).all()
