"""The end of the task learner's training, on one worker: its temperature and its accuracy, by held-out images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.models.front import Front
from engine.training.labelled import decoded
from engine.training.plan import TrainingPlan
from vaal.task.model import Task
from vaal.task.recipe import held_out

LEAST_CONTROLS = 50
"""With so many held-out labels of the control arm, a random sample of the pool, they alone decide the temperature. Of
labels that were picked for uncertainty it is too high."""
BATCH = 256


@torch.inference_mode()
def judge_task(plan: TrainingPlan, task: Task, front: Front) -> dict[str, Any]:
    """Set the temperature of a task learner in eval mode. Returns what the train manifest says of it."""
    assert plan.task is not None
    logit_NC, numbers = _logits(plan, task, front, plan.task.judging)
    entry: dict[str, Any] = {"classes": plan.task.classes, "held_out_accuracy": None, "held_out": len(numbers)}
    if not numbers:
        return entry
    is_control_N = torch.tensor([plan.positions[number][:2] in plan.task.controls for number in numbers])
    num_controls = int(is_control_N.sum())
    by = is_control_N if num_controls >= LEAST_CONTROLS else None
    found = held_out(task.kind, logit_NC, plan.task.answer_N[numbers], by)
    task.temperature.fill_(1 / found.factor)
    calibration = {"temperature": 1 / found.factor, "calibrated_on": num_controls if by is not None else len(numbers)}
    return {**entry, "held_out_accuracy": found.accuracy, **calibration, "on_control_arm": by is not None}


def _logits(plan: TrainingPlan, task: Task, front: Front, judging: list[int]) -> tuple[Tensor, list[int]]:
    """The logits (N, C) of those of these labelled images that decode, and their numbers."""
    numbers, parts = list[int](), list[Tensor]()
    for begin in range(0, len(judging), BATCH):
        part = judging[begin : begin + BATCH]
        images = list(decoded(plan.pool, [plan.positions[number] for number in part]))
        if images:
            numbers += [part[place] for place, _ in images]
            parts.append(task(front(np.stack([image for _, image in images]))).cpu())
    return (torch.cat(parts) if parts else torch.empty(0, 0)), numbers
