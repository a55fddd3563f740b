"""The task learner's training, after VAAL's: updates on the labelled images, the best weights by those held out."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.campaign.labels import Identity
from engine.models.front import Front
from engine.models.task_networks import TASK_NETWORKS
from engine.models.weights import make_classifier
from engine.training import zero
from engine.training.labelled import Part, as_seen, cache_for_task
from engine.training.masked import MaskReader, pixels_of_each, sampled_pixels
from engine.training.plan import TrainingPlan
from vaal.task.classifier import augmented
from vaal.task.recipe import LABEL_SMOOTHING, held_out, learning_rate, task_step

JUDGINGS = 20
"""Times that the held-out images are looked at in a training."""
MOST_PIXELS = 20_000
"""About so many pixels of all held-out masks are looked at."""
BATCH, MASK_BATCH = 256, 32


class TaskTraining:
    """The engine of a task learner and its images. All workers call each method together.

    `best` are the weights that are kept, on rank 0 (see `engine.training.zero.EngineUpdater.full_state`), with their
    cross-entropy on the held-out images, `best_loss` in nats. Before the first look, and where no image is held out,
    there are none: the last weights are kept. `faults` are this worker's masks that cannot be used, by item.
    """

    def __init__(self, plan: TrainingPlan, part: Part, front: Front, file: Path, most_bytes: int = sys.maxsize) -> None:
        """Reads the labelled images, as many as fit into `most_bytes` of `file`. Raises as
        `engine.training.labelled.cache_labelled`."""
        assert plan.task is not None
        self.plan, self.task, self.part, self.front, self.train = plan, plan.task, part, front, plan.config.train
        self.best: dict[str, Tensor] = {}
        self.best_loss = float("inf")
        task, recipe = make_classifier(plan.config, len(self.task.classes)), TASK_NETWORKS[plan.config.task_network]
        self.peak = recipe.learning_rate
        # AdamW, because ZeRO supports it: SGD would need its switch for untested optimizers.
        optimizer = torch.optim.AdamW(task.parameters(), lr=self.peak, weight_decay=recipe.weight_decay)
        self.engine = zero.EngineUpdater(task, optimizer, zero.settings(self.train, part.world))
        self.faults: dict[Identity, str] = {}
        reader = None if plan.masks is None else MaskReader(plan.pool, plan.masks, plan.labels, self.faults)
        split = self.task.training, self.task.judging
        where = part, plan.deal.num_streams, (reader.cache if reader else partial(as_seen, plan.pool))(file, most_bytes)
        self.labelled, self.judging = cache_for_task(plan.pool, plan.positions, split, *where)
        self.most_judging = -(-len(split[1]) // part.world)

    def step(self, number: int) -> dict[str, Tensor | None]:
        """Update `number`, from 0. Returns the losses: `task`, and after a look at held-out images `task_held_out`."""
        loss, done = self._move(number), number + 1
        is_due = JUDGINGS * done // self.task.num_steps > JUDGINGS * number // self.task.num_steps
        found = self._look() if is_due and self.most_judging else None
        return {"task": loss, "task_held_out": found}

    def _move(self, number: int) -> Tensor:
        """One update, on its own draw of the labelled images."""
        train, labelled = self.train, self.labelled
        self.engine.module.train()
        self.engine.set_learning_rate(learning_rate(number, self.task.num_steps, self.peak))
        # Of dropout, where the network has some: a function of the update alone.
        torch.manual_seed(int(np.random.default_rng((train.seed, 8, number, self.part.rank)).integers(2**62)))
        rows, pictures = [], []
        for stream in labelled.rows:
            begin, end = (step * train.batch_size // self.plan.deal.num_streams for step in (number, number + 1))
            rows.append(labelled.draw(stream, (train.seed, 4), begin, max(1, end - begin)))
            pictures.append(labelled.seen[rows[-1]])
            if train.task_augmentation != "none":
                # Masks are moved with their images.
                rng = np.random.default_rng((train.seed, 6, number, stream))
                pictures[-1] = augmented(pictures[-1], rng, flips=train.task_augmentation == "flips_and_crops")
        row_N, picture_NHWC = np.concatenate(rows), np.concatenate(pictures)
        loss = torch.zeros((), device=self.front.device)
        for part in np.array_split(np.arange(len(row_N)), train.gradient_accumulation):
            share = len(part) / len(row_N) * len(rows) * self.part.world / self.plan.deal.num_streams
            with torch.autocast(self.front.device.type, torch.bfloat16, enabled=train.precision == "bf16"):
                x_BCHW, answer = self._taught(picture_NHWC[part], row_N[part])
                weight = share * train.gradient_accumulation
                answer = answer.to(self.front.device)
                loss += share * task_step(self.engine, self.task.kind, x_BCHW, answer, weight, LABEL_SMOOTHING)
        return loss

    def _taught(self, picture_NHWC: NDArray[Any], row_N: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The network's input of what is kept of images at these rows, and the answers to learn, on the CPU."""
        if self.plan.masks is None:
            return self.front(picture_NHWC), self.task.answer_N[torch.from_numpy(self.labelled.number_N[row_N])]
        return self.front(picture_NHWC[..., :-1]), torch.from_numpy(picture_NHWC[..., -1].astype(np.int64))

    @torch.no_grad()
    def _look(self) -> Tensor | None:
        """The cross-entropy on the held-out images, None if none decodes; the weights are kept if it is the lowest."""
        self.engine.module.eval()
        parts: list[Any] = [None] * self.part.world
        torch.distributed.all_gather_object(parts, self._judged())
        number_N, logit_NC, answer_N = (np.concatenate(values) for values in zip(*parts, strict=True))
        # In one order for any number of workers.
        order = np.argsort(number_N, kind="stable")
        if not len(order):
            return None
        loss = held_out(self.task.kind, torch.from_numpy(logit_NC[order]), torch.from_numpy(answer_N[order])).loss
        if loss < self.best_loss:
            self.best_loss, self.best = loss, self.engine.full_state(keep=self.part.rank == 0, moments=False)
        return torch.tensor(loss, device=self.front.device)

    def _judged(self) -> tuple[NDArray[Any], ...]:
        """Numbers (N,), logits (N, C) and answers of this worker's held-out images, or of a sample of their pixels.

        With ZeRO 3 all workers call the network equally often.
        """
        found, batch = [], BATCH if self.plan.masks is None else MASK_BATCH
        for begin in range(0, self.most_judging, batch):
            rows = self.judging[begin : begin + batch]
            given = rows if len(rows) else np.zeros(1, np.int64)
            x_BCHW, answer = self._taught(self.labelled.seen[given], given)
            logit, answer = self.engine.module(x_BCHW).float().cpu()[: len(rows)], answer[: len(rows)]
            number_B = self.labelled.number_N[rows]
            if self.plan.masks is not None:
                count = pixels_of_each(MOST_PIXELS, len(self.task.judging))
                number_B, logit, answer = sampled_pixels(number_B, logit, answer, count)
            found.append((number_B, logit.numpy(), answer.numpy()))
        return tuple(np.concatenate(values) for values in zip(*found, strict=True))
