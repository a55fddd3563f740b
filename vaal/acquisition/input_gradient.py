"""How an image's answers change with its pixels: gradients of the task learner by its input.

They are float32, whatever the precision of the pass: bfloat16 loses a step of one pixel value. Steps and lengths are in
pixels from 0 to 1, by `Task.unit_C`, and may leave this range; embeddings are as they are. Functions that need one
backward pass share a forward pass.

Shape suffixes: B batch, C outputs, P answers of an item.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vaal.acquisition.random_hash import draws, numbered
from vaal.acquisition.view import View


class Traced(NamedTuple):
    """An input (B, ...) and its logits: (B, C, 1) of classes, (B, 1, C) of labels, (B, C, h w) of maps; with the graph
    between them."""

    x_B: Tensor
    logit_BCP: Tensor

    def gradient(self, value: Tensor) -> Tensor:
        """The gradients (B, n) of values by the inputs; no value depends on two items."""
        # Autocast would reach into the products of the backward pass.
        with torch.autocast(value.device.type, enabled=False):
            (found,) = torch.autograd.grad(value, self.x_B, torch.ones_like(value), retain_graph=True)
        return found.flatten(1)


def trace(view: View, x_B: Tensor) -> Traced:
    """Inputs of the task learner, and their logits."""
    with torch.enable_grad(), torch.autocast(x_B.device.type, enabled=False):
        if x_B is view.task_x_B:
            x_B, features = view.graph
            logit = view.task.head(features)
        else:
            x_B = x_B.detach().float().requires_grad_()
            logit = view.task(x_B)
        if logit.ndim > 2:
            return Traced(x_B, logit.flatten(2))
        return Traced(x_B, logit[:, None] if view.task.kind == "labels" else logit[:, :, None])


def traced(view: View) -> Traced:
    """The batch itself, for `view.once`."""
    return trace(view, view.task_x_B)


def pixels(view: View) -> Tensor:
    """What 1 of each component of the flattened input is in pixels from 0 to 1, (n,)."""
    x_B = view.task_x_B
    unit = torch.tensor(view.task.unit_C, device=x_B.device).view(-1, *(1 for _ in x_B.shape[2:]))
    return unit.expand(x_B.shape[1:]).flatten()


def predicted(logit_BCP: Tensor) -> Tensor:
    """The predicted classes (B, 1, P), or of labels whether they are predicted."""
    return logit_BCP.argmax(dim=1, keepdim=True) if logit_BCP.shape[1] > 1 else logit_BCP > 0


def margins(logit_BCP: Tensor, predicted_B1P: Tensor) -> Tensor:
    """By how much the logits speak for what was predicted (B, P): the logit of the class minus the largest other one;
    of labels the logit or minus it. Negative where the prediction is another one now."""
    if logit_BCP.shape[1] == 1:
        return torch.where(predicted_B1P, logit_BCP, -logit_BCP)[:, 0]
    others_BCP = logit_BCP.scatter(1, predicted_B1P, -torch.inf)
    return (logit_BCP.gather(1, predicted_B1P) - others_BCP.amax(dim=1, keepdim=True))[:, 0]


def gradient_norm(view: View) -> Tensor:
    """Minus the length of the expected gradient by the pixels (B,), float32: sqrt(tr J^T (diag p - p p^T) J), J the
    derivative of the logits by the pixels, which is the root of the input's Fisher information. Estimated.

    It is the root of the expectation of |J^T (e_y - p)|^2 over answers y, for which C backward passes would be due. One
    is enough for an estimate without bias of the square: |J^T v|^2, v = sqrt(p) s - p (sqrt(p) . s), with signs s by a
    hash of the seed, the item and the number of the logit (Hutchinson 1990). Its standard deviation is about half of
    it. Of labels v = sqrt(p (1 - p)) s. Several answers are answers of their own, and the square is their mean:
    `Settings.reduction` has no part in it.
    """
    batch = view.once(traced)
    logit_BCP = batch.logit_BCP.detach()
    number_CP = torch.arange(logit_BCP[0].numel(), device=logit_BCP.device).view(logit_BCP.shape[1:])
    draw_BCP = numbered(draws(view.identity, view.settings.seed)[:, None, None], number_CP)
    sign_BCP = torch.where(draw_BCP < 0, -1.0, 1.0)
    if logit_BCP.shape[1] == 1:
        v_BCP = (logit_BCP.sigmoid() * (-logit_BCP).sigmoid()).sqrt() * sign_BCP
    else:
        p_BCP = logit_BCP.softmax(dim=1)
        part_BCP = p_BCP.sqrt() * sign_BCP
        v_BCP = part_BCP - p_BCP * part_BCP.sum(dim=1, keepdim=True)
    with torch.enable_grad():
        value_BCP = v_BCP * batch.logit_BCP
    squared_B = (batch.gradient(value_BCP) / pixels(view)).square().sum(dim=1)
    return -(squared_B / logit_BCP.shape[2]).sqrt()


def margin_drop(view: View) -> Tensor:
    """How much the margin rises under an attack (B,), float32: negative, and the lowest where the answer is the most
    fragile.

    The attack moves every pixel by `Settings.perturbation` in the direction in which the margin falls fastest (the fast
    gradient sign method, Goodfellow et al. 2015, arXiv 1412.6572, section 4). The margin is the logit of the class that
    the image had before minus the largest other one, and becomes negative where the class changes; of several answers
    see `View.reduced`. Unlike in `dfal`, an image far from the boundary may be fragile too.
    """
    batch = view.once(traced)
    before_B1P = predicted(batch.logit_BCP)
    with torch.enable_grad():
        margin_B = view.reduced(margins(batch.logit_BCP, before_B1P))
    step_BN = batch.gradient(margin_B).sign() * view.settings.perturbation / pixels(view)
    with torch.no_grad():
        attacked = trace(view, batch.x_B - step_BN.view_as(batch.x_B))
        return view.reduced(margins(attacked.logit_BCP, before_B1P)) - margin_B
