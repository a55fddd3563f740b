"""An embedding is seen on one scale, fitted once; its latent is the same to the last bit wherever it is computed."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torch import Tensor

from vaal.standardise import MAX_LATENTS, Standardiser


def sample(num_items: int = 400, length: int = 200, rank: int | None = None) -> Tensor:
    """Embeddings of unequal spread around means that are not 0."""
    generator = torch.Generator().manual_seed(0)
    rank = rank or length
    factors = torch.randn(num_items, rank, generator=generator) * torch.logspace(0, -2, rank)
    return factors @ torch.randn(rank, length, generator=generator) + 10 * torch.randn(length, generator=generator)


def test_inputs_have_mean_0_and_variance_1() -> None:
    x = sample()
    seen = Standardiser.fitted(x).inputs(x)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.double().mean(0), torch.zeros(200).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.double().var(0, correction=0), torch.ones(200).double(), atol=1e-4, rtol=0)


def test_a_component_that_does_not_vary_is_0_and_others_are_as_without_it() -> None:
    x = sample(length=20)
    with_constant = torch.cat([x, torch.full((400, 1), 0.3)], 1)
    seen = Standardiser.fitted(with_constant).inputs(with_constant)
    assert seen[:, 20].abs().max() < 1e-6
    assert torch.equal(seen[:, :20], Standardiser.fitted(x).inputs(x))


@pytest.mark.parametrize("length", [3, MAX_LATENTS, 200])
def test_latents_are_the_principal_components_on_one_scale(length: int) -> None:
    x = sample(length=length)
    latents = Standardiser.fitted(x).latents(x).double()
    assert latents.shape == (400, min(length, MAX_LATENTS))
    assert float((latents**2).mean()) == pytest.approx(1, abs=1e-3)
    centred = x.double() - x.double().mean(0)
    # numpy's way to the same: distances are those of the embedding, but for what the last components add.
    left, values, _ = np.linalg.svd(centred.numpy(), full_matrices=False)
    kept = torch.from_numpy((left * values)[:, :MAX_LATENTS])
    kept = kept / (kept**2).mean().sqrt()
    torch.testing.assert_close(torch.cdist(latents, latents), torch.cdist(kept, kept), rtol=1e-3, atol=1e-3)


def test_fewer_items_than_components_give_the_same_components() -> None:
    x = sample(num_items=150, length=300, rank=40)
    latents = Standardiser.fitted(x).latents(x).double()
    assert latents.shape == (150, MAX_LATENTS)
    centred = x.double() - x.double().mean(0)
    expected = torch.cdist(centred, centred)
    found = torch.cdist(latents, latents)
    torch.testing.assert_close(found * float(expected.norm() / found.norm()), expected, rtol=1e-3, atol=1e-3)
    assert not latents[:, 40:].any()


@pytest.mark.parametrize("length", [5, 200, 1536])
def test_an_item_has_the_same_bits_in_any_batch_order_and_number_of_threads(length: int) -> None:
    x = sample(num_items=199, length=length)
    made = Standardiser.fitted(x)
    for function in (made.inputs, made.latents):
        whole = function(x)
        for size in (1, 7, 64):
            assert torch.equal(torch.cat([function(part) for part in x.split(size)]), whole)
        order = torch.randperm(199, generator=torch.Generator().manual_seed(1))
        assert torch.equal(function(x[order]), whole[order])
        assert torch.equal(function(x.half().float()), function(x.half()))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(made.latents(x), whole)
    finally:
        torch.set_num_threads(threads)


def test_latents_are_exact_sums_of_products() -> None:
    x = sample(num_items=3)
    made = Standardiser.fitted(x)
    steps = ((x - made.shift_D) / made.step).round().long()
    weights = made.components_ZD.long()
    exact = [[sum(int(a) * int(b) for a, b in zip(row, w, strict=True)) for w in weights] for row in steps]
    assert max(abs(value) for row in exact for value in row) < 2**53
    assert made._products(x).long().tolist() == exact


def test_what_lies_far_outside_the_sample_stays_finite() -> None:
    made = Standardiser.fitted(sample())
    assert torch.isfinite(made.latents(torch.full((1, 200), 3e38))).all()


def test_a_state_in_float32_brings_it_back(tmp_path: Path) -> None:
    x = sample()
    made = Standardiser.fitted(x)
    state = {name: tensor.float().contiguous() for name, tensor in made.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "embedding.safetensors")
    loaded = Standardiser(200)
    loaded.load_state_dict(safetensors.torch.load_file(tmp_path / "embedding.safetensors"))
    assert torch.equal(loaded.inputs(x), made.inputs(x))
    assert torch.equal(loaded.latents(x), made.latents(x))


def test_fitting_is_the_same_each_time_and_signs_are_fixed() -> None:
    first, second = (Standardiser.fitted(sample()).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    weights = first["components_ZD"]
    assert (weights.gather(1, weights.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x.fill_(0.1), "all 400 embeddings of the sample are equal"),
        (lambda x: x[3].fill_(float("nan")), "not finite"),
    ],
)
def test_a_sample_without_a_scale_is_refused(change: Any, text: str) -> None:
    x = sample()
    change(x)
    with pytest.raises(ValueError, match=text):
        Standardiser.fitted(x)


@pytest.mark.heavy
def test_real_embeddings_keep_their_neighbours() -> None:
    path = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[3] / "shared/data")) / "cifar10-embeddings"
    if not path.exists():
        pytest.skip("no cifar10-embeddings below VAAL_DATA or ../shared/data")
    column = pq.read_table(path / "test.parquet", columns=["embedding"])["embedding"].combine_chunks()
    x = torch.from_numpy(column.flatten().to_numpy().reshape(-1, 256)[:2000].astype(np.float32))
    latents = Standardiser.fitted(x).latents(x)
    assert latents.shape == (2000, MAX_LATENTS)
    nearest, kept = (torch.cdist(part, part).topk(2, largest=False).indices[:, 1] for part in (x, latents))
    assert (nearest == kept).double().mean() > 0.7
