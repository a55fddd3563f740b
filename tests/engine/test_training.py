"""Training under Ray Train and DeepSpeed equals plain PyTorch on the concatenated batch; its results are all there."""

import random
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.batches import Images, Part, Pool, cache_labelled, labelled_batches, unlabelled_batches
from engine.campaign import Campaign
from engine.demo import DemoPool
from engine.errors import InputError
from engine.labels import labelled_items, labelled_positions
from engine.pool import read_shards
from engine.training import train
from engine.weights import load_networks, make_networks
from tests.conftest import MakeCampaign
from vaal.step import LossWeights, OptimizerUpdater, PoolBatch, vaal_step

STEPS = 12
SETTINGS = ("train.batch_size=16", f"train.max_steps={STEPS}")


def join(batches: list[Images]) -> PoolBatch:
    pixels = torch.from_numpy(np.concatenate([batch.pixels_NHWC for batch in batches])).permute(0, 3, 1, 2)
    return PoolBatch(pixels.float() / 127.5 - 1, torch.from_numpy(np.concatenate([b.fold_N for b in batches])))


def plain_training(campaign: Campaign, scratch: Path, world: int, epochs: list[int]) -> list[torch.nn.Module]:
    """The same steps without Ray and DeepSpeed: one process with the batches of all workers. Steps by epoch."""
    config = campaign.config
    networks = make_networks(config)
    vae, discriminators = (OptimizerUpdater(n, torch.optim.Adam(n.parameters(), lr=5e-4)) for n in networks)
    pool = Pool(read_shards(campaign.home), config.image, config.train.folds)
    labelled = labelled_items(campaign.home)
    positions = [tuple(row.values()) for row in labelled_positions(campaign.home).to_pylist()]
    size = config.train.batch_size // world
    cached = [cache_labelled(pool, positions, Part(rank, world), scratch / f"rank{rank}") for rank in range(world)]
    for epoch, num_steps in enumerate(epochs):
        seed = (config.train.seed, epoch)
        streams = [
            (labelled_batches(cached[rank], size, (*seed, rank)),
             unlabelled_batches(pool, labelled, Part(rank, world), size, seed),
             torch.Generator().manual_seed(random.Random(f"{seed}/{rank}").getrandbits(63)))
            for rank in range(world)
        ]  # fmt: skip
        for _ in range(num_steps):
            batches = [(next(one), next(two)) for one, two, _ in streams]
            noise = [torch.randn(2 * size, 32, generator=generator) for _, _, generator in streams]
            vaal_step(
                vae,
                discriminators,
                join([one for one, _ in batches]),
                join([two for _, two in batches]),
                LossWeights(1.0, 1.0, 1.0),
                torch.cat([n[:size] for n in noise] + [n[size:] for n in noise]),
            )
    return list(networks)


def assert_equal_networks(campaign: Campaign, files: dict[str, str], expected: list[torch.nn.Module]) -> None:
    for network, plain in zip(load_networks(campaign.stage("train"), campaign.config, files), expected, strict=True):
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter, plain.get_parameter(name), atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize(("workers", "zero_stage"), [(1, 0), (2, 2)])
def test_training_equals_plain_pytorch(
    make_campaign: MakeCampaign, tmp_path: Path, local_ray: None, workers: int, zero_stage: int
) -> None:
    campaign = make_campaign(*SETTINGS, f"train.workers={workers}", f"train.zero_stage={zero_stage}")
    seen: list[tuple[int, int, dict[str, float]]] = []
    on_interrupt = signal.getsignal(signal.SIGINT)
    manifest = train(campaign, "local", lambda *progress: seen.append(progress))
    assert signal.getsignal(signal.SIGINT) is on_interrupt
    assert_equal_networks(campaign, manifest["files"], plain_training(campaign, tmp_path, workers, [STEPS]))

    folder = Path(campaign.stage("train").path)
    metrics = pq.read_table(folder / "metrics.parquet").to_pylist()
    assert [row["step"] for row in metrics] == list(range(STEPS))
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    scalars = [event.value for event in events.Scalars("loss/transductive")]
    np.testing.assert_allclose(scalars, [row["transductive"] for row in metrics], rtol=1e-6)
    assert seen[-1] == (STEPS, STEPS, manifest["losses"])
    assert manifest["counts"] == {"labelled": 200, "unlabelled_estimate": 1597, "steps": STEPS}
    assert train(campaign, "local", lambda *_: None) == manifest
    header = safetensors.torch.load((folder / "discriminator-1.safetensors").read_bytes())
    assert {tensor.dtype for tensor in header.values()} == {torch.float32}


def test_a_shard_lost_in_training_is_named_and_training_goes_on_from_its_checkpoint(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.MAX_FAILURES", 0)
    folder = tmp_path / "pool"
    folder.mkdir()
    for file in sorted(Path(pool.shards[0]).parent.glob("*.tar"))[:2]:
        (folder / file.name).write_bytes(file.read_bytes())
    labels = tmp_path / "labels.csv"
    keys = sorted(key for shard, key in pool.oracle if shard == "digits-00000.tar")[:20]
    labels.write_text("shard,key,label\n" + "".join(f"digits-00000.tar,{key},1\n" for key in keys))
    settings = ("train.batch_size=16", "train.epochs=6", "train.checkpoint_seconds=0")
    campaign = make_campaign(*settings, shards=[f"{folder}/*.tar"], labels=labels)
    lost, kept = folder / "digits-00001.tar", tmp_path / "kept.tar"

    def lose_a_shard(step: int, num_steps: int, losses: dict[str, float]) -> None:
        if step > num_steps // 6 and lost.exists():
            lost.rename(kept)

    with pytest.raises(InputError, match=r"digits-00001.tar: the shard is gone; restore it"):
        train(campaign, "local", lose_a_shard)
    assert not (campaign.stage("train") / "manifest.json").exists()
    kept.rename(lost)
    steps: list[int] = []
    manifest = train(campaign, "local", lambda step, *_: steps.append(step))
    per_epoch = manifest["counts"]["steps"] // 6
    assert steps[0] > per_epoch
    assert_equal_networks(campaign, manifest["files"], plain_training(campaign, tmp_path, 1, [per_epoch] * 6))
    metrics = (campaign.stage("train") / "metrics.parquet").read_table()
    assert metrics["step"].to_pylist() == list(range(6 * per_epoch))


def test_only_labelled_items_leave_nothing_to_pick(make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path) -> None:
    labels = tmp_path / "all.csv"
    rows = "".join(f"{shard},{key},{label}\n" for (shard, key), label in pool.oracle.items())
    labels.write_text("shard,key,label\n" + rows)
    from engine.errors import ConfigError

    with pytest.raises(ConfigError, match="is more than the 0 unlabelled items"):
        make_campaign(labels=labels)
