"""One worker's training: VAAL's iterations on its part of the batches, then the task learner's updates, from the last
whole checkpoint."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import ray.train
import torch

from engine.campaign.labels import Identity
from engine.cluster.allocation import keep_freed_memory
from engine.cluster.ray_session import usable_cpus
from engine.models.front import Front
from engine.models.weights import make_networks
from engine.training import zero
from engine.training.batches import Batches, prefetched
from engine.training.checkpoints import RunState, fault_of, is_due, read_checkpoint, write_checkpoint
from engine.training.fronts import training_front
from engine.training.judging import finish
from engine.training.labelled import Images, Labelled, Part, as_seen, cache_labelled, in_words, room_on
from engine.training.metrics import LOG_STEPS, StepLog
from engine.training.plan import TrainingPlan, augment_of, phase_of, require_decoded, require_masks
from engine.training.task_training import TaskTraining
from vaal.step import Batch, MemorisationGuard, PoolBatch, vaal_step

Found = TypeVar("Found")


def train_worker(plan: TrainingPlan) -> None:
    """Train to the end. Rank 0 writes the networks and reports to the board.

    Raises VaalError if a loss is not finite, a shard cannot be read, or too many labelled images do not decode.
    """
    context = ray.train.get_context()
    part = Part(context.get_world_rank(), context.get_world_size())
    if plan.device == "cpu":
        # Ray sets the variable to the worker's CPUs, but torch may have counted the machine's before. A private Ray
        # counts two where there is one.
        torch.set_num_threads(min(int(os.environ.get("OMP_NUM_THREADS", "1")), usable_cpus()))
        keep_freed_memory()
    zero.start(plan.device)
    front = training_front(plan)
    with tempfile.TemporaryDirectory() as scratch:
        streams = part.streams(plan.deal.num_streams)
        folder, num_here = Path(scratch), context.get_local_world_size()
        cache = as_seen(plan.pool, folder / "labelled", room_on(folder, num_here))
        labelled = cache_labelled(plan.pool, plan.positions, streams, plan.deal.num_streams, cache)
        # Before the first step: nobody waits for a training that is refused.
        not_decoded = {number for found in _of_all_workers(part, labelled.not_decoded) for number in found}
        lines, faults = [require_decoded(plan, not_decoded)], dict[Identity, str]()
        task = TaskTraining(plan, part, front, folder / "task", room_on(folder, num_here)) if plan.task else None
        if task is not None:
            faults = {item: why for found in _of_all_workers(part, task.faults) for item, why in found.items()}
            lines.append(require_masks(plan, faults))
        lines += [in_words(part.seen) for part in (labelled, *([task.labelled] if task else []))]
        for line in filter(None, lines if part.rank == 0 else []):
            plan.board.note.remote(line)
        training = _Training(plan, part, front, task)
        training.run(labelled)
    states = {name: engine.full_state(keep=part.rank == 0, moments=False) for name, engine in training.engines.items()}
    if part.rank == 0:
        if task is not None and task.best:
            states["task"] = task.best
        result = finish(plan, states, front, training.log)
        found = {"not_decoded": len(not_decoded), "masks_not_usable": len(faults)}
        ray.get(plan.board.finish.remote({**result, **found}))


def _of_all_workers(part: Part, found: Found) -> list[Found]:
    """What each worker found, by rank."""
    parts = [found] * part.world
    torch.distributed.all_gather_object(parts, found)
    return parts


class _Training:
    """A run's engines and progress; `state` is that of the last batch used, `task` the task learner's part, if any."""

    def __init__(self, plan: TrainingPlan, part: Part, front: Front, task: TaskTraining | None) -> None:
        self.plan, self.part, self.train, self.front, self.task = plan, part, plan.config.train, front, task
        self.device = front.device
        networks = make_networks(plan.config, front.num_inputs)
        self.num_latents = networks.num_latents if plan.num_steps else 0
        modules = {"vae": networks.vae, "discriminators": networks.discriminators}
        settings, learning_rate = zero.settings(self.train, part.world), self.train.learning_rate
        self.engines: dict[str, Any] = {
            name: zero.EngineUpdater(module, torch.optim.Adam(module.parameters(), lr=learning_rate), settings)
            for name, module in modules.items()
            if module is not None
        }
        if task is not None:
            self.engines["task"] = task.engine
        self.log, self.guard = StepLog(part, plan.board), MemorisationGuard()
        self.checkpoint = "none yet"
        self.state: dict[str, Any] | None = None
        self.waited_s = 0.0

    def run(self, labelled: Labelled) -> None:
        """All iterations and updates from the last checkpoint on."""
        first = self._restore()
        if self.part.rank == 0:
            self.plan.board.begin.remote(first, self.part.world, self.train.workers, self.log.rows)
        self.saved_at = time.monotonic()
        if first < self.plan.num_steps:
            self._move_vaal(labelled, first)
        if self.task is not None:
            for step in range(max(first, self.plan.num_steps), self.plan.all_steps):
                self.log.add(step, 0, self.task.step(step - self.plan.num_steps))
                self._end_of(step)
        self.log.flush(self.checkpoint)

    def _move_vaal(self, labelled: Labelled, first: int) -> None:
        """VAAL's iterations from `first` on."""
        plan, train = self.plan, self.train
        vae, discriminators = self.engines.get("vae"), self.engines.get("discriminators")
        sizes = (train.batch_size, train.gradient_accumulation, self.num_latents)
        batches = Batches(plan.pool, labelled, plan.deal, self.part, sizes, self.state)
        batches.augment = augment_of(plan.config)
        source = prefetched(batches)
        feed, begin = self._on_device(source), time.monotonic()
        try:
            for step in range(first, plan.num_steps):
                updates, has_discriminators = phase_of(plan, step, is_holding=self.guard.is_holding)
                adversary = discriminators if has_discriminators else None
                with torch.autocast(plan.device, torch.bfloat16, enabled=train.precision == "bf16"):
                    losses = vaal_step(vae, adversary, feed, plan.weights, updates)._asdict()
                epoch = int(step * plan.images_per_step / plan.images_per_epoch)
                self.log.add(step, epoch, losses)
                self._end_of(step)
        finally:
            source.close()
            ray.get(plan.board.leave_out.remote(batches.left_out))
        self.log.waiting = self.waited_s / max(time.monotonic() - begin, 1e-9)

    def _end_of(self, step: int) -> None:
        """What is due after an iteration or update."""
        is_logged = (step + 1) % LOG_STEPS == 0
        if is_logged:
            self._watch()
        saved_at = self.saved_at if is_logged else None
        if is_due(self.train, step + 1, saved_at, self.device) and step + 1 < self.plan.all_steps:
            self._save(step + 1)

    def _on_device(self, source: Iterator[Any]) -> Iterator[list[Batch]]:
        """The batches as tensors on the device."""

        def to_device(images: Images) -> PoolBatch:
            return PoolBatch(self.front(images.seen_N), torch.from_numpy(images.fold_N).to(self.device))

        while True:
            begin = time.perf_counter()
            parts, self.state = next(source)
            self.waited_s += time.perf_counter() - begin
            noises = (torch.from_numpy(part.noise_NZ).to(self.device) for part in parts)
            yield [
                Batch(to_device(part.labelled), to_device(part.unlabelled), noise_BZ, part.weight)
                for part, noise_BZ in zip(parts, noises, strict=True)
            ]

    def _watch(self) -> None:
        """Fetch the losses, and hold the discriminators if they memorise."""
        self.log.flush(self.checkpoint)
        rows = [row for row in self.log.rows[-LOG_STEPS:] if row["held_out"] is not None]
        if rows:
            trained, held_out = (float(np.mean([row[key] for row in rows])) for key in ("discriminator", "held_out"))
            self.guard.observe(trained, held_out, self.train.folds)

    def _save(self, step: int) -> None:
        self.log.flush(self.checkpoint)
        parts: list[dict[str, Any]] = [{}] * self.part.world
        torch.distributed.all_gather_object(parts, self.state["streams"] if self.state else {})
        states = {name: engine.full_state(keep=self.part.rank == 0) for name, engine in self.engines.items()}
        with tempfile.TemporaryDirectory() as folder:
            written = None
            if self.part.rank == 0:
                streams = {number: stream for part in parts for number, stream in part.items()}
                state, task_loss = self.state and {**self.state, "streams": streams}, None
                if self.task is not None and self.task.best:
                    states["task_best"], task_loss = self.task.best, self.task.best_loss
                progress = RunState(step, self.log.rows, state, vars(self.guard), task_loss)
                write_checkpoint(Path(folder), states, progress)
                written = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"step": step}, checkpoint=written)
        # report returns before the controller has registered the checkpoint, and a crash in between would lose it.
        self.checkpoint = f"{_reported()[-1].path} (step {step})"
        self.saved_at = time.monotonic()

    def _restore(self) -> int:
        """Load the newest whole checkpoint. Returns the first iteration."""
        candidates = _reported()
        choice = [len(candidates) - 1]
        while self.part.rank == 0 and choice[0] >= 0:
            with candidates[choice[0]].as_directory() as folder:
                fault = fault_of(Path(folder))
            if not fault:
                break
            line = f"checkpoint {candidates[choice[0]].path} is not whole ({fault}); going back to the one before"
            self.plan.board.note.remote(line)
            choice[0] -= 1
        torch.distributed.broadcast_object_list(choice, src=0)
        if choice[0] < 0:
            return 0
        checkpoint = candidates[choice[0]]
        with checkpoint.as_directory() as folder:
            states, progress = read_checkpoint(Path(folder))
        for name, engine in self.engines.items():
            engine.load(states[name])
        if self.task is not None and progress.task_loss is not None:
            self.task.best, self.task.best_loss = states["task_best"], progress.task_loss
        self.log.resume(progress.rows)
        self.guard, self.state = MemorisationGuard(**progress.guard), progress.batches
        self.checkpoint = f"{checkpoint.path} (step {progress.step})"
        if self.part.rank == 0:
            self.plan.board.note.remote(f"resuming from {self.checkpoint}")
        return progress.step


def _reported() -> list[ray.train.Checkpoint]:
    """The run's checkpoints, the oldest first."""
    mode = ray.train.CheckpointConsistencyMode.COMMITTED
    return [entry.checkpoint for entry in ray.train.get_all_reported_checkpoints(consistency_mode=mode)]
