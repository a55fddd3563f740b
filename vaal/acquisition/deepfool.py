"""Adversarial margin: how little an image has to change for another answer (DFAL, Ducoffe and Precioso 2018, arXiv
1802.09841), by DeepFool (Moosavi-Dezfooli et al. 2016, arXiv 1511.04599, algorithm 2).

Lengths are Euclidean, in pixels from 0 to 1; embeddings are as they are. Of labels the nearest change of any label
counts. Of a map some pixel is always near to another class, so that for segmentation it says nothing.

Shape suffixes: B batch, A items whose answer has not changed yet, C outputs, K rivals, N values of an input, P answers
of an item.
"""

import torch
from torch import Tensor

from vaal.acquisition.input_gradient import Traced, margins, pixels, predicted, trace, traced
from vaal.acquisition.view import View

RIVALS = 9
"""Other classes that are tried, the most probable ones; one more, with the predicted one, is the authors' ten."""
OVERSHOOT = 0.02
MOST_STEPS = 50
SMALLEST_STEP = 1e-4
"""Added to every step, so that an image on the boundary crosses it in spite of rounding."""
FAR = 1e6
"""The length for images whose answer does not change: without a gradient, or in MOST_STEPS."""


def first_order(view: View) -> Tensor:
    """The margin divided by the length of its gradient (B,), float32: DeepFool's first step towards the runner-up, and
    exact for a linear task learner. The lowest are the most valuable; FAR where the gradient is 0."""
    batch = view.once(traced)
    with torch.enable_grad():
        margin_B = margins(batch.logit_BCP, predicted(batch.logit_BCP)).amin(dim=1)
    length_B = (batch.gradient(margin_B) / pixels(view)).norm(dim=1)
    return _distance(margin_B.detach(), length_B).clamp_max(FAR)


def deepfool(view: View) -> Tensor:
    """The length of the change that DeepFool finds (B,), float32; the lowest are the most valuable.

    Each step goes to the nearest boundary of the network made linear. An item stands still as soon as its answer has
    changed, and so never depends on the others. FAR where it does not change, NaN where a logit is not finite.

    With ten classes or more a step takes about 13 forward passes; the memory is that of some inputs, whatever the
    number of classes.
    """
    unit_N, shape = pixels(view), view.task_x_B.shape
    start = trace(view, view.task_x_B)
    start_BN, logit_BCP = start.x_B.detach().flatten(1), start.logit_BCP.detach()
    before_B1P, rival_BK = predicted(logit_BCP), _rivals(logit_BCP)
    length_B = torch.full_like(logit_BCP[:, 0, 0], FAR)
    open_A, change_AN = torch.arange(len(length_B), device=length_B.device), torch.zeros_like(start_BN)
    for _ in range(MOST_STEPS + 1):
        moved_AN = start_BN[open_A] + (1 + OVERSHOOT) * change_AN / unit_N
        batch = trace(view, moved_AN.view(-1, *shape[1:]))
        is_same_A = (predicted(batch.logit_BCP) == before_B1P[open_A]).flatten(1).all(dim=1)
        length_B[open_A[~is_same_A]] = change_AN[~is_same_A].norm(dim=1)
        open_A, change_AN = open_A[is_same_A], change_AN[is_same_A]
        if not len(open_A):
            break
        if not is_same_A.all():
            batch = trace(view, batch.x_B[is_same_A])
        step_AN = _step(batch, before_B1P[open_A], rival_BK[open_A], unit_N)
        has_way_A = step_AN.any(dim=1)
        open_A, change_AN = open_A[has_way_A], (change_AN + step_AN)[has_way_A]
    is_finite_B = logit_BCP.flatten(1).isfinite().all(dim=1)
    return torch.where(is_finite_B, length_B.clamp_max(FAR), torch.nan)


def _rivals(logit_BCP: Tensor) -> Tensor:
    """The numbers (B, K) of the most probable other classes, or of the labels nearest to undecided."""
    if logit_BCP.shape[1] == 1:
        return logit_BCP[:, 0].abs().topk(min(RIVALS, logit_BCP.shape[2]), dim=1, largest=False).indices
    return logit_BCP[:, :, 0].topk(min(RIVALS + 1, logit_BCP.shape[1]), dim=1).indices[:, 1:]


def _step(batch: Traced, before_A1P: Tensor, rival_AK: Tensor, unit_N: Tensor) -> Tensor:
    """The step (A, N) in pixels to the nearest boundary with a rival; 0 where there is no gradient."""
    with torch.enable_grad():
        if batch.logit_BCP.shape[1] == 1:
            margin_AK = margins(batch.logit_BCP, before_A1P).gather(1, rival_AK)
        else:
            own_A1, all_AC = batch.logit_BCP.gather(1, before_A1P)[:, :, 0], batch.logit_BCP[:, :, 0]
            margin_AK = own_A1 - all_AC.gather(1, rival_AK)
    nearest_A = torch.full_like(margin_AK[:, 0], torch.inf)
    step_AN = torch.zeros_like(batch.x_B).flatten(1)
    for margin_A in margin_AK.unbind(dim=1):
        gradient_AN = batch.gradient(margin_A) / unit_N
        length_A = gradient_AN.norm(dim=1)
        distance_A = _distance(margin_A.detach(), length_A)
        size_A = (distance_A + SMALLEST_STEP) / length_A
        is_nearer_A = (distance_A < nearest_A) & (length_A > 0)
        nearest_A = torch.where(is_nearer_A, distance_A, nearest_A)
        step_AN = torch.where(is_nearer_A[:, None], -size_A[:, None] * gradient_AN, step_AN)
    return step_AN


def _distance(margin_B: Tensor, length_B: Tensor) -> Tensor:
    return torch.where(length_B == 0, FAR, margin_B / length_B)
