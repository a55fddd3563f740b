"""The end of the training of a task learner of masks, on one worker: mIoU by held-out images, and its temperature."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.models.front import Front
from engine.training.masked import Masked, MaskReader, pixels_of_each, sampled_pixels
from engine.training.plan import TrainingPlan
from engine.training.task_judging import LEAST_CONTROLS
from vaal.task.model import Task
from vaal.task.recipe import held_out
from vaal.task.segmentation import class_ious, classes_at, confusion, mean_iou

MOST_PIXELS = 50_000
"""About so many pixels of all held-out masks give the temperature."""
BATCH = 16


@torch.inference_mode()
def judge_masks(plan: TrainingPlan, task: Task, front: Front) -> dict[str, Any]:
    """As `engine.training.task_judging.judge_task`, by all pixels of the held-out masks at their own size.

    The IoU of a class that is in none of them is None.
    """
    assert plan.task is not None
    classes, judging = plan.task.classes, plan.task.judging
    each = pixels_of_each(MOST_PIXELS, len(judging))
    count_CC, sampled, numbers = torch.zeros(len(classes), len(classes), dtype=torch.int64), list[Any](), list[int]()
    for image, logit_Chw in _logits(plan, task, front, judging):
        mask_HW, number = torch.from_numpy(image.mask_HW).long(), judging[image.number]
        count_CC += confusion(classes_at(logit_Chw, *mask_HW.shape).flatten(), mask_HW.flatten(), len(classes))
        sampled.append(sampled_pixels(np.array([number]), logit_Chw[None], mask_HW[None], each))
        numbers.append(number)
    entry: dict[str, Any] = {"classes": classes, "held_out_accuracy": None, "held_out": len(numbers)}
    if not count_CC.sum():
        return entry
    number_P = np.concatenate([number_P for number_P, *_ in sampled])
    logit_PC, answer_P = (torch.cat([found[part] for found in sampled]) for part in (1, 2))
    controls = {number for number in numbers if plan.positions[number][:2] in plan.task.controls}
    is_control_P = torch.from_numpy(np.isin(number_P, list(controls)))
    by = is_control_P if len(controls) >= LEAST_CONTROLS else None
    found = held_out(task.kind, logit_PC, answer_P, by)
    task.temperature.fill_(1 / found.factor)
    return {
        **entry,
        "held_out_accuracy": float(count_CC.diagonal().sum() / count_CC.sum()),
        "held_out_miou": mean_iou(count_CC),
        "held_out_ious": dict(zip(classes, class_ious(count_CC), strict=True)),
        "temperature": 1 / found.factor,
        "calibrated_on": len(controls) if by is not None else len(numbers),
        "on_control_arm": by is not None,
    }


def _logits(plan: TrainingPlan, task: Task, front: Front, numbers: list[int]) -> Iterator[tuple[Masked, Tensor]]:
    """Each of these labelled images that can be used, and its logits (C, h, w) on the CPU."""
    assert plan.masks is not None
    images = MaskReader(plan.pool, plan.masks, plan.labels, {}).read([plan.positions[number] for number in numbers])
    while part := list(islice(images, BATCH)):
        logit_BChw = task(front(np.stack([image.pixels for image in part]))).float().cpu()
        yield from zip(part, logit_BChw, strict=True)
