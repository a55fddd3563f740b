"""Uncertainty against its definitions."""

import pytest
import torch
from torch import nn

from vaal.acquisition import ACQUISITIONS
from vaal.acquisition.uncertainty import margin
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


def test_it_asks_for_the_task_learner_in_eval_mode() -> None:
    assert ACQUISITIONS["margin"].needs == ("task",)
    with pytest.raises(ValueError, match="eval mode"):
        margin(View(Networks(task=Task(_Given()).train()), Inputs(torch.zeros(3, 2), FOLD)))
