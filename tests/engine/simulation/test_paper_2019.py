"""The authors' own code as a strategy of simulations: its loss, and why no campaign may train by it."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from engine.config.input_options import ImageConfig
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.config.train_options import TrainConfig
from engine.errors import ConfigError
from engine.simulation.paper_2019 import Paper2019, Weights, cross_entropy, transductive
from engine.simulation.pixel_pools import read_images
from vaal.signal import ACTIVE_VARIANCE


def noise(count: int, seed: int = 0, side: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def test_the_loss_is_the_authors_formula() -> None:
    image, target = torch.tensor([[[[0.0, 1.0]]], [[[2.0, 0.0]]]]), torch.zeros(2, 1, 1, 2)
    mean, logvar = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    squares = (1 + 4) / 4
    kl = -0.5 * ((1 + 0 - 1 - 1) + (1 + 0 - 0 - 1) + (1 + 1 - 0 - np.e) + (1 + 0 - 4 - 1))
    # Twice the batch has twice the KL term and the same reconstruction: this is what makes the posterior collapse.
    assert transductive(image, target, mean, logvar, beta=0.5).item() == pytest.approx(squares + 0.5 * kl)
    twice = [torch.cat([part, part]) for part in (image, target, mean, logvar)]
    assert transductive(*twice, beta=0.5).item() == pytest.approx(squares + kl)
    logit = torch.tensor([[2.0], [-1.0]])
    expected = np.mean([np.log1p(np.exp(-2.0)), np.log1p(np.exp(1.0))])
    assert cross_entropy(logit, 1.0).item() == pytest.approx(expected, rel=1e-5)


def test_the_discriminator_sees_the_mean_and_weights_count() -> None:
    networks = Paper2019(16, 3, seed=0)
    x = torch.randn(4, 3, 16, 16)
    losses = [networks.vae_loss(x, x, Weights(beta=0.0, adversarial=weight)).item() for weight in (0.0, 1.0, 3.0)]
    mean = networks.vae.encode(x)[0]
    looks_labelled = 2 * cross_entropy(networks.discriminator(mean), 1.0).item()
    # Noise changes the reconstruction alone, and by little.
    assert losses[2] - losses[0] == pytest.approx(3 * looks_labelled, abs=0.3)
    own = networks.discriminator_loss(x, x).item()
    logit = networks.discriminator(mean)
    assert own == pytest.approx((cross_entropy(logit, 1.0) + cross_entropy(logit, 0.0)).item(), rel=1e-5)


def test_a_score_depends_on_batch_mates() -> None:
    pixels, others = noise(8), noise(8, seed=1)
    others[0] = pixels[0]
    both = [Paper2019(16, 3, seed=0).score(images, 8).logit_N[0].item() for images in (pixels, others)]
    assert both[0] != pytest.approx(both[1], abs=1e-3)
    # The same images, order and flips: the same.
    assert Paper2019(16, 3, seed=0).score(pixels, 8).logit_N[0].item() == both[0]
    # Each item has its own row, and a last batch of one is none.
    assert len(Paper2019(16, 3, seed=0).score(noise(9), 8).mean_NZ) == 9


@pytest.mark.heavy
def test_weights_and_draws_are_those_of_the_seed() -> None:
    def trained(seed: int) -> torch.Tensor:
        networks = Paper2019(16, 3, seed)
        networks.train(noise(8), noise(8, 1), 2, TrainConfig(batch_size=4))
        return nn.utils.parameters_to_vector(networks.vae.parameters())

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_no_campaign_trains_by_it() -> None:
    with pytest.raises(ConfigError, match=r"train.method=vaal_2019 is for experiments of vaal simulate") as refused:
        override(CampaignConfig(), {"train.method": "vaal_2019"}, "--set")
    assert "share a batch" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.heavy
def test_with_the_authors_reductions_the_posterior_collapses() -> None:
    data = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[4] / "shared/data")) / "cifar10"
    if not data.exists():
        pytest.skip("no cifar10 below VAAL_DATA or ../shared/data")
    names, pixels, *_ = read_images(str(data / "train-00000.tar"), ImageConfig(size=16), {})
    rows = pq.read_table(data / "train-oracle.parquet").to_pylist()
    classes = {(row["shard"], row["key"]): row["label"] for row in rows}
    known = sorted(set(classes.values()))[:5]
    is_labelled = np.array([classes[name] in known for name in names])
    networks, seen = Paper2019(16, 3, seed=0), pixels[~is_labelled][:256]

    def num_active() -> int:
        return int((networks.score(seen, 128).mean_NZ.var(dim=0) > ACTIVE_VARIANCE).sum())

    assert num_active() == 32
    networks.train(pixels[is_labelled], pixels[~is_labelled], 40, TrainConfig(batch_size=32, vae_steps=2))
    assert num_active() == 0
