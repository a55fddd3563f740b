"""What a task learner that a user brings must be, tried on a few inputs.

Shape suffixes: B batch, C outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vaal.acquisition.dropout import check_dropout
from vaal.network_trial import exact, fault_of
from vaal.task.model import Task

SUM_TOLERANCE = 1e-3
"""Of the sum of an answer's probabilities, which is 1."""


FAR = 1000.0
"""By this features are multiplied, to see whether outputs stay between 0 and 1."""


class TaskError(ValueError):
    """A network that is no task learner, or not the one that is needed. The text is one line."""


def check_task(task: Task, x_B: Tensor, *, with_gradient: bool = False, with_dropout: bool = False) -> int:
    """The number C of outputs of a task learner in eval mode, and of its members, found with different inputs.

    Args:
        x_B: inputs of two or more items, as the networks see them, on their device.
        with_gradient: whether scores need the gradient of the logits by the input.
        with_dropout: whether scores draw the network by its own dropout.

    Raises TaskError if a network lacks `features` or `head`, fails, or returns other shapes than `Task` says, numbers
    that are not finite, the same for all items, or probabilities in place of logits; if an item's result depends on the
    others in its batch, or on chance; or if a gradient or dropout is needed and there is none.
    """
    counts = [_check_member(task, number, x_B, with_gradient=with_gradient) for number in range(len(task.networks))]
    if len({*counts}) > 1:
        raise TaskError(f"the members have {counts} outputs, not the same number")
    if with_dropout:
        try:
            check_dropout(task, x_B)
        except ValueError as error:
            raise TaskError(f"cannot be drawn by its dropout (score.dropout=network): {error}") from error
    return counts[0]


def _check_member(task: Task, number: int, x_B: Tensor, *, with_gradient: bool) -> int:
    try:
        return _check(Task(task.networks[number], task.kind).eval(), x_B, with_gradient=with_gradient)
    except TaskError as error:
        raise TaskError(f"member {number + 1}: {error}" if number else str(error)) from error


def _check(task: Task, x_B: Tensor, *, with_gradient: bool) -> int:
    for name in ("features", "head"):
        if not callable(getattr(task.network, name, None)):
            why = f"{type(task.network).__name__} has no {name}"
            raise TaskError(f"{why}; give features(x) before the last layer, and head(features) to logits")
    is_map = task.kind == "segmentation"
    with torch.no_grad(), exact(x_B.device):
        feature_B, logit_B = _outputs(task, x_B)
        if is_map and logit_B.shape[2:] != feature_B.shape[2:]:
            sizes = f"{tuple(logit_B.shape[2:])} of features {tuple(feature_B.shape[2:])}"
            raise TaskError(f"head returns logits {sizes}; leave out what enlarges them")
        if logit_B.shape[1] < 2 and task.kind != "labels":
            raise TaskError("has one output; give one for each class, two or more")
        alone = [_outputs(task, x_B[n : n + 1]) for n in range(len(x_B))]
    for name, together_B, parts in zip(
        ("features", "logits"), (feature_B, logit_B), zip(*alone, strict=True), strict=True
    ):
        if fault := fault_of(together_B, torch.cat(parts), name, name):
            raise TaskError(fault)
    if _are_probabilities(task, feature_B, logit_B):
        raise TaskError("returns probabilities, not logits; leave out the softmax or sigmoid at its end")
    if with_gradient:
        _require_gradient(task, x_B)
    return logit_B.shape[1]


def _outputs(task: Task, x_B: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits, float32."""
    shape = "(batch, {}, height, width)" if task.kind == "segmentation" else "(batch, {})"
    feature_B = _run(task.network, "features", x_B)
    _require(feature_B, "features", len(x_B), shape.format("components"))
    logit_B = _run(task.network, "head", feature_B.float())
    _require(logit_B, "head", len(x_B), shape.format("classes"))
    return feature_B.float(), logit_B.float()


def _run(network: nn.Module, name: str, x_B: Tensor) -> Any:
    try:
        return getattr(network, name)(x_B)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        # The network is the user's, and may raise anything.
        text = " ".join(str(error).split()) or type(error).__name__
        raise TaskError(f"{name} fails on inputs {tuple(x_B.shape)}: {text}") from error


def _require(found: Any, name: str, num_items: int, shape: str) -> None:
    if not isinstance(found, Tensor):
        raise TaskError(f"{name} returns {type(found).__name__}, not one tensor {shape}")
    if found.ndim != shape.count(",") + 1 or len(found) != num_items or not found.is_floating_point():
        kind = f"{tuple(found.shape)} of {str(found.dtype).removeprefix('torch.')}"
        raise TaskError(f"{name} returns {kind} for {num_items} images, not {shape} of floats")


@torch.no_grad()
def _are_probabilities(task: Task, feature_B: Tensor, logit_B: Tensor) -> bool:
    if task.kind == "labels":
        # Logits of a few images may all be from 0 to 1. Those of features that are far away are not.
        far = [_run(task.network, "head", factor * feature_B) for factor in (FAR, -FAR)]
        return all(bool(((logits >= 0) & (logits <= 1)).all()) for logits in (logit_B, *far))
    is_one = (logit_B.sum(dim=1) - 1).abs() <= SUM_TOLERANCE
    return bool((logit_B >= 0).all() and is_one.all())


def _require_gradient(task: Task, x_B: Tensor) -> None:
    """Raises TaskError if the logits have no gradient by the input."""
    input_B = x_B.detach().clone().requires_grad_()
    with torch.enable_grad():
        logit_B: Tensor = task(input_B)
        # Another factor for each output, because logits may have a sum that is always the same.
        factor_C = torch.linspace(1, 2, logit_B.shape[1], device=x_B.device)
        total = (logit_B.movedim(1, -1) * factor_C).sum()
        found = torch.autograd.grad(total, input_B, allow_unused=True)[0] if total.requires_grad else None
    if found is None or not torch.isfinite(found).all() or not found.any():
        why = "gives no gradient of its logits by the input, which score.acquisition asks for"
        raise TaskError(f"{why}; leave out torch.no_grad, detach and rounding, or choose other scores")
