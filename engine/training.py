"""Training: Ray Train workers that move two DeepSpeed engines through VAAL's steps. The only module with DeepSpeed.

A round's training is a function of its fingerprint (configuration, labels, pool); a checkpoint is only taken up by a
run of the same fingerprint.
"""

import itertools
import json
import logging
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.train
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor

from engine.batches import Images, Part, Pool, cache_labelled, labelled_batches, unlabelled_batches
from engine.campaign import Campaign, check_budget, fingerprint, is_complete, read_manifest, write_manifest
from engine.config import CampaignConfig, result_values
from engine.errors import InputError, VaalError
from engine.labels import labelled_items, labelled_positions, labels_fingerprints
from engine.metrics import StepLog
from engine.pool import Shard, estimate_num_items, read_shards
from engine.progress import Board, following
from engine.session import choose_device, cpus_per_worker, ray_session
from engine.storage import Location
from engine.weights import make_networks, save_networks
from vaal.step import LossWeights, PoolBatch, vaal_step

MAX_FAILURES = 2


class Job(NamedTuple):
    """What every worker is told."""

    config: CampaignConfig
    home: Location
    folder: Location
    shards: list[Shard]
    steps_per_epoch: int
    num_steps: int
    device: str
    board: Any


def train(campaign: Campaign, address: str, on_step: Callable[[int, int, dict[str, float]], None]) -> dict[str, Any]:
    """Train this round's networks and complete the train stage. Returns its manifest; a complete stage is left alone.

    `on_step(steps done, steps in all, losses)` is called as training proceeds.

    Raises:
        InputError: a shard or label cannot be read, or nothing is left to train on.
        ConfigError: the budget exceeds the pool, or the cluster lacks what the configuration asks for.
    """
    folder = campaign.stage("train")
    if is_complete(folder):
        return read_manifest(folder, "train")
    check_budget(campaign)
    config, shards = campaign.config, read_shards(campaign.home)
    labels = labels_fingerprints(campaign.home)
    pool_print = fingerprint(shards=[shard[:4] for shard in shards])
    num_labelled = len(labelled_items(campaign.home))
    num_unlabelled = estimate_num_items(shards) - num_labelled
    if num_unlabelled < 1:
        raise InputError(f"{campaign.home}: all {num_labelled} items are labelled; nothing is left to pick")
    steps_per_epoch = max(1, round(num_unlabelled / config.train.batch_size))
    num_steps = min(config.train.max_steps, config.train.epochs * steps_per_epoch)
    run_name = fingerprint(
        labels=labels, pool=pool_print, steps=num_steps,
        image=result_values(config.image), train=result_values(config.train),
    )[:16]  # fmt: skip
    with ray_session(address):
        device = choose_device(config.device, config.train.workers, address)
        board = Board.remote()
        job = Job(config, campaign.home, folder, shards, steps_per_epoch, num_steps, device, board)
        with following(board, lambda step, losses: on_step(step, num_steps, losses)):
            result = _fit(job, folder / "checkpoint", run_name)
    return write_manifest(
        folder,
        campaign,
        inputs={**labels, "pool": pool_print},
        counts={"labelled": num_labelled, "unlabelled_estimate": num_unlabelled, "steps": num_steps},
        files=result["files"],
        details={"device": device, "losses": result["losses"]},
    )


def _fit(job: Job, storage: Location, run_name: str) -> dict[str, Any]:
    train = job.config.train
    on_gpu = job.device == "cuda"
    num_cpus = 1 if on_gpu else cpus_per_worker(train.workers)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=train.workers, use_gpu=on_gpu, resources_per_worker={"CPU": num_cpus, "GPU": int(on_gpu)}
        ),
        run_config=RunConfig(
            name=run_name,
            storage_path=storage.path,
            storage_filesystem=None if storage.is_local else storage.filesystem,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except SystemExit as error:
        # Ray Train answers Ctrl-C by stopping its workers and leaving the process without a word.
        raise KeyboardInterrupt from error
    except ray.train.WorkerGroupError as error:
        raise (ray.get(job.board.failure.remote()) or error) from error
    finally:
        # Ray Train leaves its handler in place, and scoring would then end on Ctrl-C as if it were done.
        signal.signal(signal.SIGINT, on_interrupt)
    result: dict[str, Any] = ray.get(job.board.result.remote())
    return result


def _work(loop_config: dict[str, Any]) -> None:
    """One worker's training. An error that a person must mend is noted, for Ray retries whatever is raised."""
    job: Job = loop_config["job"]
    if failure := ray.get(job.board.failure.remote()):
        raise failure
    try:
        _train_worker(job)
    except VaalError as error:
        ray.get(job.board.fail.remote(error))
        raise


def _train_worker(job: Job) -> None:
    """Train from the last checkpoint, or from the start."""
    config, context = job.config, ray.train.get_context()
    part = Part(context.get_world_rank(), context.get_world_size())
    if job.device == "cpu":
        # Ray sets the variable to the worker's CPUs, after torch may have counted those of the machine.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    vae, discriminators = _engines(job, part)
    device = torch.device(job.device)
    pool = Pool(job.shards, config.image, config.train.folds)
    labelled = labelled_items(job.home)
    weights = LossWeights(config.train.beta, config.train.transductive_weight, config.train.adversarial_weight)
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    size = config.train.batch_size // part.world
    with tempfile.TemporaryDirectory() as scratch:
        log = StepLog(part, job.board)
        first_epoch = _restore(vae, discriminators, log)
        positions = [tuple(row.values()) for row in labelled_positions(job.home).to_pylist()]
        cached = cache_labelled(pool, positions, part, Path(scratch) / "labelled")
        last_checkpoint = time.monotonic()
        for epoch in itertools.count(first_epoch):
            steps = range(epoch * job.steps_per_epoch, min((epoch + 1) * job.steps_per_epoch, job.num_steps))
            # Every epoch draws its own streams from the seed, so that a resumed epoch is the epoch it would have been.
            seed = (config.train.seed, epoch)
            noise = torch.Generator(device).manual_seed(random.Random(f"{seed}/{part.rank}").getrandbits(63))
            batches = zip(
                labelled_batches(cached, size, (*seed, part.rank)),
                unlabelled_batches(pool, labelled, part, size, seed),
                strict=True,
            )
            for step, (batch_labelled, batch_unlabelled) in zip(steps, batches, strict=False):
                noise_BZ = torch.randn(2 * size, vae.module.to_mean.out_features, generator=noise, device=device)
                losses = vaal_step(
                    vae, discriminators,
                    _to_device(batch_labelled, device, dtype), _to_device(batch_unlabelled, device, dtype),
                    weights, noise_BZ.to(dtype),
                )  # fmt: skip
                log.add(step, epoch, losses)
            log.flush()
            if steps.stop >= job.num_steps:
                break
            if _agree(time.monotonic() - last_checkpoint > config.train.checkpoint_seconds, device):
                _checkpoint(vae, discriminators, log, epoch)
                last_checkpoint = time.monotonic()
        states = vae.full_state(), discriminators.full_state()
        if part.rank == 0:
            files = {**save_networks(job.folder, *states), **log.save(job.folder)}
            ray.get(job.board.finish.remote({"files": files, "losses": log.last}))


def _to_device(images: Images, device: torch.device, dtype: torch.dtype) -> PoolBatch:
    pixels = torch.from_numpy(images.pixels_NHWC).to(device).permute(0, 3, 1, 2)
    return PoolBatch(pixels.to(dtype) / 127.5 - 1, torch.from_numpy(images.fold_N).to(device))


def _agree(decision: bool, device: torch.device) -> bool:
    """Rank 0's decision, on every rank: clocks differ, and a checkpoint is made by all or none."""
    flag = torch.tensor([float(decision)], device=device)
    torch.distributed.broadcast(flag, src=0)
    return bool(flag.item())


class _EngineUpdater:
    """A DeepSpeed engine as `vaal.step` sees it."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    @property
    def module(self) -> Any:
        return self.engine.module

    def __call__(self, *inputs: Tensor) -> Any:
        return self.engine(*inputs)

    def apply(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        self.engine.step()

    def full_state(self) -> dict[str, Tensor]:
        """The whole state dict; a collective, because under ZeRO 3 every rank holds a part of it."""
        import deepspeed

        partitioned = self.engine.zero_optimization_stage() == 3
        parameters = list(self.engine.module.parameters())
        with deepspeed.zero.GatheredParameters(parameters) if partitioned else nullcontext():
            return {key: value.detach().clone() for key, value in self.engine.module.state_dict().items()}


def _engines(job: Job, part: Part) -> tuple[Any, Any]:
    """Updaters of the VAE and of the discriminators, each an engine of its own."""
    os.environ["DS_ACCELERATOR"] = job.device
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    # init_distributed would compile this operator: minutes and a C++ compiler, for inference on CPUs only; and a
    # process killed meanwhile leaves a lock on which every later run hangs.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if job.device == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    train = job.config.train
    settings = {
        "train_micro_batch_size_per_gpu": train.batch_size // part.world,
        "gradient_accumulation_steps": 1,
        # DeepSpeed clips at 1.0 unless told otherwise.
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": train.zero_stage},
        "bf16": {"enabled": train.precision == "bf16"},
    }
    updaters = []
    for network in make_networks(job.config):
        # torch's Adam, because DeepSpeed's own is AdamW by default and compiles at first use.
        optimizer = torch.optim.Adam(network.parameters(), lr=train.learning_rate)
        engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=settings, dist_init_required=False)
        updaters.append(_EngineUpdater(engine))
    return updaters[0], updaters[1]


def _checkpoint(vae: _EngineUpdater, discriminators: _EngineUpdater, log: StepLog, epoch: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, updater in (("vae", vae), ("discriminators", discriminators)):
            updater.engine.save_checkpoint(f"{folder}/{name}", tag="engine")
        if log.part.rank == 0:
            Path(folder, "progress.json").write_text(json.dumps({"epoch": epoch, "rows": log.rows}))
        written = ray.train.Checkpoint.from_directory(folder) if any(Path(folder).iterdir()) else None
        ray.train.report({"epoch": epoch}, checkpoint=written)
    # report returns before the controller has registered the checkpoint: a crash in between would lose it.
    ray.train.get_all_reported_checkpoints(consistency_mode=ray.train.CheckpointConsistencyMode.COMMITTED)


def _restore(vae: _EngineUpdater, discriminators: _EngineUpdater, log: StepLog) -> int:
    """The epoch to begin with."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        for name, updater in (("vae", vae), ("discriminators", discriminators)):
            path, _ = updater.engine.load_checkpoint(f"{folder}/{name}", tag="engine")
            if path is None:
                raise VaalError(f"{checkpoint.path}/{name}: DeepSpeed found no checkpoint there")
        progress = json.loads(Path(folder, "progress.json").read_text())
    log.rows = progress["rows"]
    return int(progress["epoch"]) + 1
