"""The networks are judged for the batch that will be picked."""

import pytest
import torch

from engine.models.front import Front
from engine.models.weights import make_networks
from engine.training.judging import judge
from engine.training.plan import plan_training
from tests.conftest import MakeCampaign


@pytest.mark.parametrize("num_folds", [1, 2])
def test_the_lift_is_that_of_the_share_that_a_batch_takes(make_campaign: MakeCampaign, num_folds: int) -> None:
    campaign = make_campaign("select.budget=600", f"train.folds={num_folds}")
    plan = plan_training(campaign)
    entries = judge(plan, make_networks(campaign.config).ready(), plan.positions, Front(torch.device("cpu")))
    # 1,597 images have no label; without folds, those that are judged are a fifth of them.
    assert entries["diagnosis"]["lift"]["share"] == pytest.approx(600 / 1597, rel=0.03)
