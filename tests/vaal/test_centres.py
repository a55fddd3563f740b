"""Nearest centres are exact, and centres the same on any machine."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vaal import centres
from vaal.centres import LARGEST, MOST_LATENTS, Centres, k_means, nearest, quantise, scale_of


def whole(num_items: int, num_units: int, seed: int = 0, largest: int = LARGEST) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(-largest, largest + 1, (num_items, num_units)).astype(np.float32))


@pytest.mark.parametrize("num_units", [1, 7, 128, 346, 347, MOST_LATENTS])
def test_the_nearest_centre_is_that_of_whole_numbers(num_units: int) -> None:
    x_NZ, centre_CZ = whole(50, num_units), whole(30, num_units, 1)
    # Opposite corners: the largest values that there are.
    x_NZ[0], centre_CZ[0], centre_CZ[1] = LARGEST, -LARGEST, LARGEST
    cluster_N, distance_N = nearest(x_NZ, centre_CZ)
    exact_NC = ((x_NZ.long()[:, None] - centre_CZ.long()[None]) ** 2).sum(dim=2)
    assert distance_N.tolist() == exact_NC.min(dim=1).values.tolist()
    assert cluster_N.tolist() == exact_NC.numpy().argmin(axis=1).tolist()
    assert cluster_N.dtype == distance_N.dtype == torch.int32


def test_ties_go_to_the_lowest_number() -> None:
    centre_CZ = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    cluster_N, distance_N = nearest(torch.zeros(2, 2), centre_CZ)
    assert (cluster_N.tolist(), distance_N.tolist()) == ([1, 1], [1, 1])


def test_an_assignment_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    x_NZ, centre_CZ = whole(200, 16, largest=3), whole(40, 16, 1, largest=3)
    expected = nearest(x_NZ, centre_CZ)
    monkeypatch.setattr(centres, "BLOCK_VALUES", 40 * 7)
    for found, other in zip(nearest(x_NZ, centre_CZ), expected, strict=True):
        assert found.tolist() == other.tolist()
    assert nearest(x_NZ[5:6], centre_CZ)[0].item() == expected[0][5].item()


def test_too_many_units_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1040"):
        nearest(torch.zeros(1, MOST_LATENTS + 1), torch.zeros(1, MOST_LATENTS + 1))


def test_latents_are_quantised_about_their_middle() -> None:
    latent_NZ = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)) * 3 + 5
    middle_Z, scale = scale_of(latent_NZ)
    x_NZ = quantise(latent_NZ, middle_Z, scale)
    assert x_NZ.abs().max() == LARGEST
    assert torch.equal(x_NZ, x_NZ.round())
    inside = x_NZ.abs() < LARGEST
    restored = (x_NZ * scale + middle_Z)[inside]
    assert (restored - latent_NZ[inside]).abs().max() <= 0.51 * scale
    assert 0.99 < inside.float().mean() < 1


def test_stored_latents_have_the_clusters_of_those_scored() -> None:
    latent_NZ = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    middle_Z, scale = scale_of(latent_NZ)
    found = Centres(k_means(quantise(latent_NZ, middle_Z, scale), 50, 0), middle_Z, scale)
    assert torch.equal(found.of(latent_NZ)[0], found.of(latent_NZ.half().float())[0])


def test_centres_are_means_and_the_same_again() -> None:
    x_NZ = torch.cat([whole(300, 4, seed, 10) + 60 * seed - 90 for seed in range(4)])
    first, second = (k_means(x_NZ, 40, 3) for _ in range(2))
    assert torch.equal(first, second)
    assert len(first) == len(torch.unique(first, dim=0)) <= 40
    assert torch.equal(first, first.round())
    drawn = x_NZ[torch.from_numpy(np.random.default_rng(3).permutation(len(x_NZ))[:40])]
    assert nearest(x_NZ, first)[1].double().mean() < 0.8 * nearest(x_NZ, drawn)[1].double().mean()


def test_weights_count_as_copies() -> None:
    x_NZ = whole(30, 3)
    weight_N = np.arange(30)
    centre_CZ = k_means(x_NZ, 1, 0, weight_N)
    mean = np.average(x_NZ.numpy(), axis=0, weights=weight_N)
    np.testing.assert_allclose(centre_CZ[0].numpy(), mean, atol=0.5)


def test_there_are_no_more_centres_than_points() -> None:
    x_NZ = torch.tensor([[1.0], [1.0], [5.0]])
    assert k_means(x_NZ, 3, 0).flatten().tolist() == [1, 5]
    assert sorted(k_means(x_NZ, 3, 0, np.array([1, 1, 1])).flatten().tolist()) == [1, 5]
