"""Uncertainty against its definitions and against scikit-activeml."""

from collections.abc import Callable

import pytest
import torch
from skactiveml.pool import uncertainty_scores
from torch import nn

from tests.views import CLASSES, Kind, images, networks_of, task_of, view_of
from vaal.acquisition import ACQUISITIONS
from vaal.acquisition.uncertainty import entropy, least_confidence, margin, ratio
from vaal.acquisition.view import Inputs, View
from vaal.assembly import Networks
from vaal.task.model import Task

FOLD = torch.zeros(3, dtype=torch.int64)


class _Given(nn.Module):
    """A network whose logits are its input."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Identity()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x


def given(logits_BC: torch.Tensor) -> View:
    return View(Networks(task=Task(_Given()).eval()), Inputs(logits_BC, FOLD))


def test_margin_is_the_first_probability_less_the_second() -> None:
    probability_BC = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.05, 0.05, 0.9]])
    score_B = margin(given(probability_BC.log()))
    torch.testing.assert_close(score_B, torch.tensor([0.2, 0.0, 0.85]))
    # The lowest is the most valuable image: that between two classes.
    assert score_B.argmin() == 1


def test_ratio_is_the_second_probability_over_the_first() -> None:
    probability_BC = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.05, 0.05, 0.9]])
    torch.testing.assert_close(ratio(given(probability_BC.log())), -torch.tensor([0.6, 1.0, 0.05 / 0.9]))


@pytest.mark.parametrize(
    ("score", "method", "sign", "offset"),
    [
        (least_confidence, "least_confident", -1, 1),
        (margin, "margin_sampling", -1, 1),
        (entropy, "entropy", -1, 0),
    ],
)
def test_it_is_that_of_scikit_activeml(
    score: Callable[[View], torch.Tensor], method: str, sign: int, offset: int
) -> None:
    logits_BC = 3 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    expected = uncertainty_scores(logits_BC.double().softmax(dim=1).numpy(), method=method)
    torch.testing.assert_close(
        score(given(logits_BC)).double(), offset + sign * torch.from_numpy(expected), rtol=0, atol=1e-6
    )


def test_sure_answers_keep_finite_scores_and_the_ratio_tells_them_apart() -> None:
    view = given(torch.tensor([[200.0, 0.0, -50.0], [40.0, 0.0, 0.0], [30.0, 0.0, 0.0]]))
    for score in (least_confidence, margin):
        torch.testing.assert_close(score(view), torch.ones(3))
    torch.testing.assert_close(ratio(view), -torch.tensor([0.0, 40.0, 30.0]).neg().exp() * torch.tensor([0, 1, 1]))
    assert ratio(view)[1] != ratio(view)[2]
    torch.testing.assert_close(entropy(view), torch.zeros(3), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["labels", "segmentation"])
def test_of_several_answers_it_is_the_mean(kind: Kind) -> None:
    task = task_of(kind)
    view = view_of(networks_of(task, []), images(5))
    if kind == "labels":
        yes_BC = view.logits.double().sigmoid()
        p_BPK = torch.stack([1 - yes_BC, yes_BC], dim=2)
    else:
        p_BPK = view.logits.double().softmax(dim=1).permute(0, 2, 3, 1).reshape(5, -1, CLASSES)
    first_BP, second_BP = p_BPK.sort(dim=2, descending=True).values[..., :2].unbind(dim=2)
    expected = {
        least_confidence: first_BP,
        margin: first_BP - second_BP,
        ratio: -second_BP / first_BP,
        entropy: (p_BPK * p_BPK.log()).sum(dim=2),
    }
    for score, answer_BP in expected.items():
        torch.testing.assert_close(score(view).double(), answer_BP.mean(dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["least_confidence", "margin", "ratio", "entropy"])
def test_what_is_worth_nothing_is_what_the_table_says(name: str) -> None:
    function = {"least_confidence": least_confidence, "margin": margin, "ratio": ratio, "entropy": entropy}[name]
    sure = function(given(torch.tensor([[1000.0, 0.0, 0.0]])))
    assert sure.item() == ACQUISITIONS[name].worthless


def test_it_asks_for_the_task_learner_in_eval_mode() -> None:
    assert ACQUISITIONS["margin"].needs == ("task",)
    with pytest.raises(ValueError, match="eval mode"):
        margin(View(Networks(task=Task(_Given()).train()), Inputs(torch.zeros(3, 2), FOLD)))
