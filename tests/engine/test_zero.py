"""Law 7: any number of workers under any ZeRO stage trains as plain PyTorch does, and goes on where another stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from engine.campaign import Campaign
from engine.config import override
from engine.plan import plan
from engine.weights import make_networks
from tests.engine.zero_worker import STEPS, VARIANT
from tests.learn import optimize

WORLDS = (2, 1, 4)
"""Two workers first: the others go on from their checkpoints."""
SETTINGS = ("image.size=8", "train.batch_size=16", "train.vae_steps=2", f"train.max_steps={STEPS}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pool: object) -> tuple[Path, Campaign]:
    """What the processes wrote, and their campaign."""
    from engine.campaign import create
    from engine.config import CampaignConfig, parse_settings

    folder = tmp_path_factory.mktemp("zero")
    config = override(CampaignConfig(), parse_settings([*pool.settings, *SETTINGS]), "test")  # type: ignore[attr-defined]
    campaign = create(str(folder / "campaign"), pool.shards, str(pool.labels), config, lambda _: None)  # type: ignore[attr-defined]
    for world in WORLDS:
        words = [sys.executable, "-m", "tests.engine.zero_worker", str(campaign.home), str(folder)]
        where = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29600 + world)}
        processes = [
            subprocess.Popen(
                words, env={**os.environ, **where, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for rank in range(world)
        ]  # fmt: skip
        for process in processes:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output[-3000:]
    return folder, campaign


@pytest.fixture(scope="module")
def plain(runs: tuple[Path, Campaign]) -> dict[str, Tensor]:
    return plain_weights(runs[1])


def plain_weights(campaign: Campaign) -> dict[str, Tensor]:
    networks = make_networks(campaign.config)
    optimize(plan(campaign), campaign, networks, guarded=False)
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
@pytest.mark.parametrize("world", sorted(WORLDS))
def test_workers_and_zero_stages_train_alike(
    runs: tuple[Path, Campaign], plain: dict[str, Tensor], world: int, stage: int
) -> None:
    assert_same_weights(runs[0] / f"world-{world}-stage-{stage}.safetensors", plain)
    assert_same_weights(runs[0] / f"resumed-{world}-stage-{stage}.safetensors", plain)


@pytest.mark.parametrize("stage", range(4))
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(runs: tuple[Path, Campaign], stage: int) -> None:
    found, expected = (
        safetensors.torch.load_file(runs[0] / f"{kind}-2-stage-{stage}.safetensors") for kind in ("resumed", "world")
    )
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_accumulation_clipping_and_offload_train_as_plain_pytorch(runs: tuple[Path, Campaign], world: int) -> None:
    folder, campaign = runs
    settings = {key: value for key, value in VARIANT.items() if key != "train.offload"}
    changed = Campaign(campaign.home, override(campaign.config, settings, "test"), 0)
    assert_same_weights(folder / f"variant-{world}.safetensors", plain_weights(changed))
