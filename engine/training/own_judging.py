"""How much of the labelled images the user's task learner gets right: it never trained here, so all of them judge it.

What is found shows a wrong order of classes, and a wrong mean, size or order of channels: with those a network still
gives scores.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from engine.campaign.labels import Identity
from engine.campaign.packed_positions import Position
from engine.errors import InputError
from engine.models.task_answers import answers_of
from engine.pool.identity import ALONE, group_number_of
from engine.training.describing import MAPS_AT_ONCE, Reader
from engine.training.labelled import Decoded, decoded
from engine.training.masked import Masked, MaskReader
from engine.training.plan import TrainingPlan
from vaal.signal import Interval
from vaal.task.model import Task
from vaal.task.segmentation import classes_at, confusion, mean_iou
from vaal.task.shares import share_of

MOST_JUDGING = 5000
"""Most labelled images, at random, by which it is judged."""
LEAST_OF_A_CLASS = 10
"""So many labelled images a class are needed to find another order of the classes."""


@torch.inference_mode()
def judge_own(plan: TrainingPlan, task: Task, reader: Reader, classes: Sequence[str]) -> dict[str, Any]:
    """What the train manifest says of how good the user's task learner is, in eval mode: see `_entry`.

    Right is, of a class the likeliest one; of several classes an image, that the likeliest is one of them, without
    images that have none; of masks the likeliest class of a pixel. `classes` are in the order of the logits.
    """
    order = np.random.default_rng((plan.config.train.seed, 11)).permutation(len(plan.positions))
    positions = [plan.positions[number] for number in sorted(order[:MOST_JUDGING].tolist())]
    if plan.masks is not None:
        return _by_masks(plan, task, reader, positions, classes)
    items = list[tuple[str, str]]()

    def images() -> Iterator[Decoded]:
        for number, image in decoded(reader.pool, positions):
            items.append(positions[number][:2])
            yield (*items[-1], image)

    logits = (task(x_B) for x_B, _ in reader.blocks(images()))
    parts = [(logit_BC.argmax(dim=1).cpu(), logit_BC.isfinite().all(dim=1).cpu()) for logit_BC in logits]
    if not parts:
        return {}
    # Outputs that are not finite are no answer: scoring quarantines such images.
    found_N, is_answer_N = (torch.cat(column) for column in zip(*parts, strict=True))
    answer = answers_of(task.kind, [plan.labels[item] for item in items], classes).answer_N
    if task.kind == "labels":
        right_N = answer.gather(1, found_N[:, None])[:, 0].bool() & is_answer_N
        return _entry(plan, items, right_N, answer.any(dim=1), answer.sum(dim=0), classes)
    right_N, count_C = (found_N == answer) & is_answer_N, torch.bincount(answer, minlength=len(classes))
    entry = _entry(plan, items, right_N, torch.ones_like(right_N), count_C, classes)
    if order_C := other_order(answer[is_answer_N], found_N[is_answer_N], len(classes)):
        entry["other_order"] = [classes[number] for number in order_C]
    return entry


def _entry(
    plan: TrainingPlan, items: list[tuple[str, str]], right_N: Tensor, total_N: Tensor, count_C: Tensor,
    classes: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """The number of labelled images that judge it; the share that is right, with the ends of its 95 % interval; and the
    most frequent class, with the share that would be right if it were always the answer. Empty without an answer."""
    if not total_N.sum():
        return {}
    groups = plan.pool.groups
    numbers = [group_number_of(*item, groups) >> 1 for item in items]
    found = share_of(right_N, total_N, None if groups == ALONE else torch.tensor(numbers, dtype=torch.int64))
    most = int(count_C.argmax())
    return {
        "labelled": int((total_N > 0).sum()),
        "labelled_accuracy": found.value,
        "labelled_interval": [found.low, found.high],
        "most_frequent": {"class": classes[most], "share": float(count_C[most] / total_N.sum())},
    }


def _by_masks(
    plan: TrainingPlan, task: Task, reader: Reader, positions: Sequence[Position], classes: Sequence[str]
) -> dict[str, Any]:
    assert plan.masks is not None
    faults = dict[Identity, str]()
    images = MaskReader(reader.pool, plan.masks, plan.labels, faults).read(positions)
    count_CC = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    right, total, items = list[int](), list[int](), list[tuple[str, str]]()
    while part := _next(images, faults):
        logit_BChw = task(reader.see(np.stack([image.pixels for image in part]))).float().cpu()
        for image, logit_Chw in zip(part, logit_BChw, strict=True):
            mask_HW = torch.from_numpy(image.mask_HW).long()
            class_HW = classes_at(logit_Chw, *mask_HW.shape)
            found_CC = confusion(class_HW.flatten(), mask_HW.flatten(), len(classes))
            count_CC += found_CC
            right.append(int(found_CC.diagonal().sum()))
            total.append(int(found_CC.sum()))
            items.append(positions[image.number][:2])
    entry = _entry(plan, items, torch.tensor(right), torch.tensor(total), count_CC.sum(dim=1), classes)
    if not entry:
        return {"not_judged": f"no mask can be used, as {min(faults.values())}"} if faults else {}
    return entry | {"labelled_miou": mean_iou(count_CC)}


def _next(images: Iterator[Masked], faults: dict[Identity, str]) -> list[Masked]:
    """The next images; none where no mask can be used: the user's task learner does not train on them."""
    try:
        return list(islice(images, MAPS_AT_ONCE))
    except InputError:
        if not faults:
            raise
        return []


def other_order(answer_N: Tensor, found_N: Tensor, num_classes: int) -> list[int] | None:
    """The class that each output most likely stands for, where outputs in another order are surely more often right;
    else None. The order is found on one half of the items, and must prove itself on the other."""
    if len(answer_N) < LEAST_OF_A_CLASS * num_classes:
        return None
    is_first_N = torch.from_numpy(np.random.default_rng(len(answer_N)).permutation(len(answer_N)) % 2 == 0)

    def order_of(rows_N: Tensor) -> Tensor:
        pair_N = found_N[rows_N] * num_classes + answer_N[rows_N]
        count_CC = torch.bincount(pair_N, minlength=num_classes**2).reshape(num_classes, num_classes)
        return torch.from_numpy(linear_sum_assignment(count_CC.numpy(), maximize=True)[1])

    def right(order_C: Tensor) -> Interval:
        is_right_N = order_C[found_N[~is_first_N]] == answer_N[~is_first_N]
        return share_of(is_right_N, torch.ones_like(is_right_N))

    if right(order_of(is_first_N)).low <= right(torch.arange(num_classes)).high:
        return None
    found: list[int] = order_of(torch.ones_like(is_first_N)).tolist()
    return found
