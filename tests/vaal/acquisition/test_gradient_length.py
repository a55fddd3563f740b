"""The closed form of the last layer against autograd, answer by answer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.views import CLASSES, FEATURES, images, task_of, view_of
from vaal.acquisition.gradient_length import expected_gradient_length
from vaal.acquisition.view import Inputs, Settings, View
from vaal.assembly import Networks
from vaal.task.kinds import Kind
from vaal.task.model import Task


def lengths(task: Task, x: Tensor, *, with_norm: bool = True) -> Tensor:
    """The expected length of the gradient of each answer (B, P), by autograd, float64, value by value."""
    layer = task.linear
    assert layer is not None
    bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
    parameters = [(part / task.temperature).double().requires_grad_() for part in (layer.weight, bias)]
    used = parameters[: 1 if layer.bias is None else 2]
    maps = task.features(x).double()
    feature_BPD = maps.flatten(2).movedim(1, 2) if maps.ndim > 2 else maps[:, None]
    return torch.stack(
        [torch.cat([_lengths(h, parameters, used, task.kind, with_norm) for h in h_PD]) for h_PD in feature_BPD]
    )


def _lengths(h_D: Tensor, parameters: list[Tensor], used: list[Tensor], kind: Kind, with_norm: bool) -> Tensor:
    logit_C = parameters[0] @ h_D + parameters[1]
    if kind == "labels":
        losses = [[(logit.sigmoid(), F.softplus(-logit)), ((-logit).sigmoid(), F.softplus(logit))] for logit in logit_C]
    else:
        losses = [list(zip(logit_C.softmax(0), -logit_C.log_softmax(0), strict=True))]
    extra = len(used) - 1
    size = 1.0 if with_norm else (h_D.square().sum() + extra).sqrt().reciprocal()

    def length(loss: Tensor) -> Tensor:
        grads = torch.autograd.grad(loss, used, retain_graph=True)
        return torch.cat([grad.flatten() for grad in grads]).norm() * size

    return torch.stack([sum((p.detach() * length(loss) for p, loss in answer), torch.zeros(())) for answer in losses])


@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("kind", ["classes", "labels", "segmentation"])
def test_it_is_the_expected_length_by_autograd(kind: Kind, with_norm: bool) -> None:
    task, x = task_of(kind), images(4)
    task.temperature.fill_(0.6)
    found = expected_gradient_length(view_of(Networks(task=task), x, Settings(with_norm=with_norm)))
    torch.testing.assert_close(found.double(), -lengths(task, x, with_norm=with_norm).mean(dim=1), rtol=1e-5, atol=0)


def test_a_layer_without_bias_and_another_reduction() -> None:
    task, x = task_of("segmentation"), images(4)
    task.network.head = nn.Conv2d(FEATURES, CLASSES, 1, bias=False).requires_grad_(False)
    found = expected_gradient_length(view_of(Networks(task=task), x, Settings(reduction="lowest")))
    torch.testing.assert_close(found.double(), -lengths(task, x).amax(dim=1), rtol=1e-5, atol=0)


class _Given(nn.Module):
    """A network whose logits are its input, by one linear layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.head = nn.Linear(size, size)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(size))
            self.head.bias.zero_()

    def features(self, x: Tensor) -> Tensor:
        return x


def test_lengths_of_sure_answers_are_not_lost_in_rounding() -> None:
    x = torch.tensor([[gap, 0.0, 1.0] for gap in (8.0, 12.0, 18.0, 30.0)])
    task = Task(_Given(3)).eval()
    found = expected_gradient_length(View(Networks(task=task), Inputs(x, torch.zeros(4))))
    torch.testing.assert_close(found.double(), -lengths(task, x)[:, 0], rtol=1e-4, atol=0)
    # The least sure is the most valuable.
    assert (found.diff() > 0).all()


def test_it_asks_for_a_linear_head() -> None:
    task = task_of("classes")
    task.network.head = nn.Sequential(nn.Linear(FEATURES, CLASSES))
    with pytest.raises(ValueError, match="not one linear layer"):
        expected_gradient_length(view_of(Networks(task=task), images(2)))


@pytest.mark.parametrize(
    "head", [nn.Conv2d(FEATURES, CLASSES, 3, padding=1), nn.Conv2d(FEATURES, CLASSES, 1, stride=2)]
)
def test_a_convolution_that_mixes_or_skips_places_is_not_linear(head: nn.Module) -> None:
    task = task_of("segmentation")
    task.network.head = head
    assert task.linear is None
