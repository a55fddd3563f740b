"""Law 7: any number of workers under any ZeRO stage trains as plain PyTorch does, and goes on where another stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.models.weights import make_networks
from engine.simulation.demo_pools import DemoPool
from engine.training.plan import plan_training
from tests.engine.training import zero_worker
from tests.engine.training.zero_worker import STEPS, VARIANT
from tests.learn import optimize
from tests.processes import Processes

SETTINGS = ("image.size=8", "train.batch_size=16", "train.vae_steps=2", f"train.max_steps={STEPS}")
WORLDS = [1, 2, pytest.param(4, marks=pytest.mark.slow)]


class Runs(Processes):
    """Those of two and of one begin at once, for the one goes on from checkpoints of the two."""

    def __init__(self, campaign: Campaign, folder: Path) -> None:
        self.campaign = campaign
        super().__init__(zero_worker.__name__, str(campaign.home), folder, (2, 1))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pool: DemoPool) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("zero")
    config = override(CampaignConfig(), parse_settings([*pool.settings, *SETTINGS]), "test")
    made = Runs(create(str(folder / "campaign"), pool.shards, str(pool.labels), config, lambda _: None), folder)
    yield made
    made.end()


@pytest.fixture(scope="module")
def plain(runs: Runs) -> dict[str, Tensor]:
    return plain_weights(runs.campaign)


@pytest.fixture(scope="module")
def plain_variant(runs: Runs) -> dict[str, Tensor]:
    settings = {key: value for key, value in VARIANT.items() if key != "train.offload"}
    return plain_weights(Campaign(runs.campaign.home, override(runs.campaign.config, settings, "test"), 0))


def plain_weights(campaign: Campaign) -> dict[str, Tensor]:
    networks = make_networks(campaign.config)
    optimize(plan_training(campaign), campaign, networks, guarded=False)
    modules = {"vae": networks.vae, "discriminators": networks.discriminators}
    return {f"{m}/weight/{key}": p for m, module in modules.items() if module for key, p in module.named_parameters()}


def assert_same_weights(file: Path, expected: dict[str, Tensor]) -> None:
    found = safetensors.torch.load_file(file)
    assert {key for key in found if "/weight/" in key} == set(expected)
    for key, tensor in expected.items():
        torch.testing.assert_close(
            found[key], tensor.detach(), atol=1e-5, rtol=0, msg=lambda m, k=key: f"{file.name} {k}: {m}"
        )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("world", WORLDS)
def test_workers_and_zero_stages_train_alike(runs: Runs, plain: dict[str, Tensor], world: int, stage: int) -> None:
    assert_same_weights(runs.of(world) / f"world-{world}-stage-{stage}.safetensors", plain)
    assert_same_weights(runs.of(world) / f"resumed-{world}-stage-{stage}.safetensors", plain)


@pytest.mark.parametrize("stage", range(4))
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(runs: Runs, stage: int) -> None:
    found, expected = (
        safetensors.torch.load_file(runs.of(2) / f"{kind}-2-stage-{stage}.safetensors") for kind in ("resumed", "world")
    )
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("world", WORLDS)
def test_accumulation_clipping_and_offload_train_as_plain_pytorch(
    runs: Runs, plain_variant: dict[str, Tensor], world: int
) -> None:
    assert_same_weights(runs.of(world) / f"variant-{world}.safetensors", plain_variant)
