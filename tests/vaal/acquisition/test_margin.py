"""Margin sampling against its definition."""

import pytest
import torch
from torch import nn

from vaal.acquisition import ACQUISITIONS
from vaal.acquisition.margin import margin
from vaal.assembly import Networks

FOLD = torch.zeros(3, dtype=torch.int64)


class _Given(nn.Module):
    def __init__(self, logits_BN: torch.Tensor) -> None:
        super().__init__()
        self.logits_BN = logits_BN

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.logits_BN[: len(x_BCHW)]


def test_it_is_the_first_probability_less_the_second() -> None:
    probability_BN = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.05, 0.05, 0.9]])
    score_B, embedding, class_B = margin(
        Networks(task=_Given(probability_BN.log()).eval()), torch.zeros(3, 1, 8, 8), FOLD
    )
    torch.testing.assert_close(score_B, torch.tensor([0.2, 0.0, 0.85]))
    assert embedding is None
    assert (class_B.dtype, class_B[0], class_B[2]) == (torch.int32, 0, 2)
    # The lowest is the most valuable image: that between two classes.
    assert score_B.argmin() == 1


def test_it_asks_for_the_task_learner_in_eval_mode() -> None:
    assert ACQUISITIONS["margin"].needs == ("task",)
    with pytest.raises(ValueError, match="eval mode"):
        margin(Networks(task=_Given(torch.zeros(3, 2)).train()), torch.zeros(3, 1, 8, 8), FOLD)
