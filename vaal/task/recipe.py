"""How the task learner is trained: one cycle of the learning rate, smoothed labels, the best weights by held-out ones.

Shape suffixes: B batch, N items, C outputs.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaal.calibration import mean_loss, temperature_factor
from vaal.task.kinds import Kind
from vaal.task.segmentation import mask_loss

if TYPE_CHECKING:
    from vaal.step import Updater

WARM_UP = 0.1
"""Share of the updates in which the learning rate rises to its peak."""
LABEL_SMOOTHING = 0.1


def learning_rate(step: int, num_steps: int, peak: float) -> float:
    """The learning rate of update `step` of `num_steps`: a linear rise to the peak, then a cosine to 0 (one cycle,
    arXiv 1708.07120). A function of the update alone, so that a run resumes anywhere."""
    rise = max(1, round(WARM_UP * num_steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * (1 + math.cos(math.pi * (step - rise) / max(1, num_steps - rise))) / 2


def task_loss(kind: Kind, logit_BC: Tensor, answer: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, a scalar: averaged over B, of labels also over the C answers, yes or no; of segmentation
    `vaal.task.segmentation.mask_loss`.

    Args:
        logit_BC: for segmentation (B, C, h, w).
        answer: for classes (B,) int64 from 0 to C - 1; for labels (B, C) of 0 and 1; for segmentation masks (B, H, W)
            int64.
        smoothing: share of the target that is spread evenly over the values of an answer (arXiv 1512.00567, section 7).
    """
    if kind == "labels":
        target_BC = answer.to(logit_BC) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logit_BC, target_BC)
    if kind == "segmentation":
        return mask_loss(logit_BC, answer, smoothing)
    return F.cross_entropy(logit_BC, answer, label_smoothing=smoothing)


def task_step(
    task: "Updater", kind: Kind, x_BCHW: Tensor, answer: Tensor, weight: float = 1.0, smoothing: float = 0.0
) -> Tensor:
    """Update the task learner by a micro-batch of this weight (see `vaal.step.Batch`).

    Returns its loss before the update, without the weight, detached: a float32 scalar in nats.
    """
    loss = task_loss(kind, task(x_BCHW).float(), answer, smoothing)
    task.apply(weight * loss)
    return loss.detach()


class HeldOut(NamedTuple):
    """Of items that a task learner did not train on: its cross-entropy in nats at the best temperature, the share of
    answers that are right, and 1 / that temperature."""

    loss: float
    accuracy: float
    factor: float


def held_out(kind: Kind, logit_NC: Tensor, answer: Tensor, calibrates_N: Tensor | None = None) -> HeldOut:
    """What logits of held-out items say. Calibrated, because a network that is too sure may yet order items best.

    Args:
        logit_NC: of segmentation those of a sample of pixels, which then are the items.
        answer: as of `task_loss`. Of labels each yes and each no is an answer. Of pixels their classes (N,).
        calibrates_N: the items (N,) bool to whose answers the temperature is fitted; all without it.

    Raises ValueError if there is no item.
    """
    if not len(logit_NC):
        raise ValueError("no item is held out")
    fitted_N = torch.ones(len(logit_NC), dtype=torch.bool) if calibrates_N is None else calibrates_N
    if kind == "labels":
        is_right = ((logit_NC > 0) == (answer > 0.5)).double()
        fitted = fitted_N[:, None].expand_as(logit_NC).flatten()
        logit_NC, answer = logit_NC.reshape(-1, 1), answer.flatten().long()
    else:
        is_right, fitted = (logit_NC.argmax(dim=1) == answer).double(), fitted_N
    factor = temperature_factor(logit_NC[fitted], answer[fitted])
    return HeldOut(mean_loss(factor * logit_NC, answer), float(is_right.mean()), factor)
