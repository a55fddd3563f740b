"""Margin sampling (Scheffer, Decomain and Wrobel 2001): the task learner's margin between its two best classes."""

import torch
from torch import Tensor

from vaal.assembly import Networks


@torch.inference_mode()
def margin(networks: Networks, x_BCHW: Tensor, fold_B: Tensor) -> tuple[Tensor, None, Tensor]:  # noqa: ARG001 - no folds
    """Probability of the most likely class minus that of the second (B,), float32, from 0 (undecided) to 1; no
    embedding; and the number of the most likely class (B,), int32.

    Raises ValueError if the task learner is in training mode.
    """
    (task,) = networks.scoring("task")
    (first_B, second_B), (class_B, _) = (
        part.unbind(dim=1) for part in task(x_BCHW).float().softmax(dim=1).topk(2, dim=1)
    )
    return first_B - second_B, None, class_B.to(torch.int32)
