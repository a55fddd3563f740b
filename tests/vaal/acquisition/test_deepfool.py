"""DeepFool against its algorithm, item by item, and exactly on linear learners."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.views import images, task_of, vector_task, vectors, view_of
from vaal.acquisition.deepfool import FAR, MOST_STEPS, OVERSHOOT, SMALLEST_STEP, deepfool, first_order
from vaal.acquisition.view import View
from vaal.assembly import Networks
from vaal.task.model import Task

Function = Callable[[View], Tensor]
UNITS = (0.5, 0.2, 1.0)


def algorithm(task: Task, x: Tensor) -> float:
    """Algorithm 2 of arXiv 1511.04599 on one image, in pixels, with the overshoot at every look as the authors' code
    has it; of labels on each label's own boundary."""
    unit = torch.tensor(task.unit_C).view(-1, 1, 1)
    change = torch.zeros_like(x)
    before = task(x[None])[0]
    for _ in range(MOST_STEPS):
        moved = (x + (1 + OVERSHOOT) * change / unit).requires_grad_()
        logit = task(moved[None])[0]
        if task.kind == "labels":
            if bool(((logit > 0) != (before > 0)).any()):
                return float(change.norm())
            gaps = list(logit * before.sign())
        else:
            own = int(before.argmax())
            if int(logit.argmax()) != own:
                return float(change.norm())
            gaps = [logit[own] - value for number, value in enumerate(logit) if number != own]
        slopes = [torch.autograd.grad(gap, moved, retain_graph=True)[0] / unit for gap in gaps]
        distances = torch.stack([gap / slope.norm() for gap, slope in zip(gaps, slopes, strict=True)])
        slope = slopes[int(distances.argmin())]
        change = (change - (distances.min() + SMALLEST_STEP) * slope / slope.norm()).detach()
    return FAR


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_it_is_the_algorithm_of_each_image_alone(kind: str) -> None:
    task = Task(task_of(kind, seed=1).network, kind, unit_C=UNITS).eval()  # type: ignore[arg-type]
    x = images(10) * 3
    found = deepfool(view_of(Networks(task=task), x))
    expected = torch.tensor([algorithm(task, item) for item in x])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert (found < FAR).all()
    # More than one step: it is not the first order.
    assert not torch.allclose(found, first_order(view_of(Networks(task=task), x)), rtol=1e-2)


def boundaries(task: Task, x: Tensor) -> Tensor:
    """The distances (B, C - 1) of a linear learner's boundaries with the other classes, the runner-up first."""
    weight, logit = task.network.head.weight, task(x)
    order = logit.argsort(dim=1, descending=True)
    gap = logit.gather(1, order[:, :1]) - logit.gather(1, order[:, 1:])
    scale = task.temperature
    return gap * scale / (weight[order[:, :1]] - weight[order[:, 1:]]).norm(dim=2)


def test_a_linear_learner_has_the_exact_distances() -> None:
    task, x = vector_task(), vectors(40)
    task.temperature.fill_(1.7)
    view = view_of(Networks(task=task), x)
    distance = boundaries(task, x)
    torch.testing.assert_close(first_order(view), distance[:, 0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(deepfool(view), distance.amin(dim=1) + SMALLEST_STEP, rtol=1e-4, atol=1e-6)
    assert (distance.argmin(dim=1) > 0).any()
    halved = view_of(Networks(task=Task(task.network, unit_C=(0.5,)).eval()), x)
    torch.testing.assert_close(first_order(halved), 0.5 * distance[:, 0], rtol=1e-4, atol=1e-6)


def test_labels_have_the_nearest_boundary_of_one() -> None:
    task, x = Task(vector_task().network, "labels", unit_C=(1.0,)).eval(), vectors(40)
    head = task.network.head
    distance = (task(x).abs() / head.weight.norm(dim=1)).amin(dim=1)
    view = view_of(Networks(task=task), x)
    torch.testing.assert_close(deepfool(view), distance + SMALLEST_STEP, rtol=1e-4, atol=1e-6)
    # The first order takes the least sure label, which need not be the nearest.
    least = task(x).abs().argmin(dim=1)
    torch.testing.assert_close(
        first_order(view), (task(x).abs() / head.weight.norm(dim=1)).gather(1, least[:, None])[:, 0]
    )


def test_an_image_on_the_boundary_is_near() -> None:
    task = vector_task()
    task.network.head.bias.zero_()
    view = view_of(Networks(task=task), torch.zeros(1, 6))
    assert float(first_order(view)) == 0
    assert 0 < float(deepfool(view)) < 10 * SMALLEST_STEP


@pytest.mark.parametrize("function", [first_order, deepfool])
def test_without_a_gradient_it_is_far_and_a_bad_item_is_marked(function: Function) -> None:
    task, x = vector_task(), vectors(3)
    x[1] = torch.nan
    task.network.head.weight[1:] = task.network.head.weight[0]
    task.network.head.bias.copy_(torch.arange(4.0))
    found = function(view_of(Networks(task=task), x))
    assert found[[0, 2]].tolist() == [FAR, FAR]
    assert torch.isnan(found[1])


def test_an_image_that_never_changes_is_far() -> None:
    """A class whose logit is the largest everywhere, while the linear network always promises another."""
    task = vector_task()

    def logits(x: Tensor) -> Tensor:
        slope = x[:, 0].abs()
        return torch.stack([slope + 1, slope + (-x[:, 0].abs()).exp() * 0.9], dim=1)

    task.network.head.forward = logits  # type: ignore[method-assign]
    found = deepfool(view_of(Networks(task=task), torch.full((2, 6), 0.1)))
    assert found.tolist() == [FAR, FAR]
