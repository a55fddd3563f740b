"""Embeddings get mean 0 and variance 1 for the networks, and keep their own distances for everything else."""

import numpy as np
import torch

from vaal.standardise import LEAST_STD, MOST_LATENTS, Standardiser


def vectors(length: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(5, 2.0 ** -np.arange(length).clip(0, 6), (500, length)), dtype=torch.float32)


def test_inputs_have_mean_0_and_variance_1() -> None:
    x_ND = Standardiser.fit(vectors(20))(vectors(20))
    torch.testing.assert_close(x_ND.mean(dim=0), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(x_ND.std(dim=0, correction=0), torch.ones(20), atol=1e-4, rtol=0)


def test_latents_have_the_embeddings_own_distances_up_to_one_scale() -> None:
    v_ND = vectors(20)
    made = Standardiser.fit(v_ND)
    ratio = torch.pdist(made.latents(made(v_ND))) / torch.pdist(v_ND)
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), atol=1e-4, rtol=0)


def test_of_long_embeddings_the_directions_of_largest_variance_stay() -> None:
    hidden, rng = vectors(30), np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(300, 300)))
    v_ND = hidden @ torch.tensor(rotation[:30], dtype=torch.float32)
    made = Standardiser.fit(v_ND)
    latent_NZ = made.latents(made(v_ND))
    assert latent_NZ.shape == (500, MOST_LATENTS)
    ratio = torch.pdist(latent_NZ) / torch.pdist(v_ND)
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), atol=1e-3, rtol=0)


def test_a_dimension_that_hardly_varies_stays_small() -> None:
    v_ND = vectors(5)
    v_ND[:, 4] = 3.0
    v_ND[0, 4] += 1e-3
    made = Standardiser.fit(v_ND)
    assert made(v_ND)[:, 4].abs().max() < 1.0 / LEAST_STD * 1e-2
    assert torch.isfinite(made(torch.full((1, 5), 9.0))).all()


def test_one_embedding_alone_and_equal_ones_give_finite_inputs() -> None:
    for v_ND in (vectors(3)[:1], torch.ones(4, 3)):
        made = Standardiser.fit(v_ND)
        assert torch.isfinite(made.latents(made(v_ND))).all()


def test_the_constants_go_through_a_file_and_an_items_batch_mates_change_nothing() -> None:
    v_ND = vectors(300)
    made = Standardiser.of(Standardiser.fit(v_ND).state_dict())
    alone = torch.cat([made.latents(made(v_D[None])) for v_D in v_ND[:7]])
    torch.testing.assert_close(alone, made.latents(made(v_ND))[:7], atol=1e-5, rtol=1e-5)
