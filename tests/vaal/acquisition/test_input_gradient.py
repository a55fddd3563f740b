"""Gradients by the input against whole Jacobians, and the attack against its definition."""

import pytest
import torch
from torch import Tensor

from tests.views import CHANNELS, images, task_of, vector_task, vectors, view_of
from vaal.acquisition.input_gradient import gradient_norm, margin_drop
from vaal.acquisition.view import Settings
from vaal.assembly import Networks
from vaal.task.kinds import Kind
from vaal.task.model import Task

UNITS = (0.5, 0.2, 1.0)


def pixel_jacobian(task: Task, x: Tensor) -> Tensor:
    """The derivative (C, P, n) of one item's logits by its pixels."""
    unit = torch.tensor(task.unit_C)
    pixel = x * unit.view(-1, *(1 for _ in x.shape[1:]))

    def logits(pixel: Tensor) -> Tensor:
        return task((pixel / unit.view(-1, *(1 for _ in x.shape[1:])))[None])[0]

    found: Tensor = torch.func.jacrev(logits)(pixel)
    return found.flatten(-x.ndim).reshape(found.shape[0], -1, x.numel())


def expected_square(task: Task, x: Tensor) -> float:
    """The mean over answers of E_y |J^T (e_y - p)|^2, value by value."""
    jacobian_CPN = pixel_jacobian(task, x)
    logit_CP = task(x[None])[0].reshape(jacobian_CPN.shape[:2])
    if task.kind == "labels":
        p = logit_CP.sigmoid()
        yes, no = ((p - y) * jacobian_CPN[..., None].squeeze(-1).norm(dim=2) for y in (1, 0))
        return float((p * yes.square() + (1 - p) * no.square()).mean())
    p, total = logit_CP.softmax(dim=0), torch.zeros(logit_CP.shape[1])
    for y, jacobian_PN in enumerate(jacobian_CPN):
        total += p[y] * (jacobian_PN - (p[:, :, None] * jacobian_CPN).sum(dim=0)).square().sum(dim=1)
    return float(total.mean())


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["classes", "labels", "segmentation"])
def test_the_square_is_right_in_the_mean_over_seeds(kind: Kind) -> None:
    task = task_of(kind)
    task = Task(task.network, kind, unit_C=UNITS).eval()
    x, draws = images(3), 400
    squares = torch.stack(
        [gradient_norm(view_of(Networks(task=task), x, Settings(seed))).square() for seed in range(draws)]
    )
    expected = torch.tensor([expected_square(task, item) for item in x])
    assert ((squares.mean(dim=0) - expected).abs() < 4 * squares.std(dim=0) / draws**0.5).all()
    # Tight enough to see a factor of a unit, of a logit or of an answer.
    assert (squares.std(dim=0) / draws**0.5 < 0.05 * expected).all()


def test_the_least_sure_of_equal_gradients_is_the_lowest() -> None:
    task, x = vector_task(), vectors(1) * 0.1
    found = torch.cat(
        [gradient_norm(view_of(Networks(task=task), factor * x, Settings(3))) for factor in (0.0, 20.0, 1e3)]
    )
    assert float(found[0]) < float(found[1]) < float(found[2]) <= 0


def attacked(task: Task, x: Tensor, epsilon: float) -> Tensor:
    """The fast gradient sign method by its definition, on one item: what the margin gains."""
    x = x[None].clone().requires_grad_()

    def margin(x: Tensor, before: Tensor) -> Tensor:
        logit = task(x)[0]
        if task.kind == "labels":
            return torch.stack([value if yes else -value for value, yes in zip(logit, before > 0, strict=True)]).mean()
        classes = before.argmax(dim=0).flatten()
        logit_PC = logit.reshape(len(logit), -1).T
        rest = [row[torch.arange(len(row)) != own].max() for row, own in zip(logit_PC, classes, strict=True)]
        return torch.stack([row[own] - r for row, own, r in zip(logit_PC, classes, rest, strict=True)]).mean()

    before = task(x)[0].detach()
    first = margin(x, before)
    (slope,) = torch.autograd.grad(first, x)
    unit = torch.tensor(task.unit_C).view(1, -1, *(1 for _ in x.shape[2:]))
    return margin(x - epsilon / unit * slope.sign(), before) - first


@pytest.mark.parametrize("epsilon", [2 / 255, 0.3])
@pytest.mark.parametrize("kind", ["classes", "labels", "segmentation"])
def test_margin_drop_is_the_fast_gradient_sign_method(kind: Kind, epsilon: float) -> None:
    task = Task(task_of(kind).network, kind, unit_C=UNITS).eval()
    x = images(4)
    found = margin_drop(view_of(Networks(task=task), x, Settings(perturbation=epsilon)))
    expected = torch.stack([attacked(task, item, epsilon) for item in x]).detach()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert (found < 0).all()


def test_a_class_that_changes_lets_the_margin_fall_below_zero() -> None:
    """Of a linear learner the fall is the step times the sum of the weights' differences, boundary or not."""
    task, x = vector_task(), vectors(6)
    weight = task.network.head.weight[:2]
    task.network.head.weight.copy_(torch.cat([weight, torch.zeros(2, weight.shape[1])]))
    task.network.head.bias.copy_(torch.tensor([0.0, 0.0, -1e3, -1e3]))
    found = margin_drop(view_of(Networks(task=task), x, Settings(perturbation=2.0)))
    fall = 2.0 * (weight[0] - weight[1]).abs().sum()
    torch.testing.assert_close(found, -fall.expand(6))
    assert (fall > task(x)[:, :2].diff().abs()).any()


@pytest.mark.parametrize("function", [gradient_norm, margin_drop])
def test_the_precision_of_the_pass_changes_nothing(function: object) -> None:
    task, x = task_of("classes"), images(3)
    found = function(view_of(Networks(task=task), x))  # type: ignore[operator]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        again = function(view_of(Networks(task=task), x))  # type: ignore[operator]
    torch.testing.assert_close(again, found, rtol=0, atol=0)


def test_they_share_a_forward_pass() -> None:
    task, calls = task_of("classes"), list[int]()
    task.network.body.register_forward_hook(lambda *_: calls.append(1))
    view = view_of(Networks(task=task), images(2))
    gradient_norm(view)
    margin_drop(view)
    assert len(calls) == 2
    assert images(1).shape[1] == CHANNELS
