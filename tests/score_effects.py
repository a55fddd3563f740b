"""Options of the acquisition functions, and where the change of each shows."""

from typing import Any

import torch

from engine.config.options import CampaignConfig
from engine.models.summaries import settings_of
from engine.scoring.scorer import candidate_functions
from engine.selection.order import ranking_by
from engine.selection.second_pass import num_rescored
from tests.effects import Bench, Look
from tests.views import images, task_of
from vaal.acquisition.bayesian import bald
from vaal.acquisition.gradient_length import expected_gradient_length
from vaal.acquisition.input_gradient import margin_drop
from vaal.acquisition.uncertainty import entropy
from vaal.acquisition.view import Inputs, View
from vaal.assembly import Networks


def scored(bench: Bench, config: CampaignConfig) -> Any:
    """Scores of a few images by what the options of acquisition functions say."""
    inputs = Inputs(images(6), torch.zeros(6, dtype=torch.int64))
    view = View(Networks(task=task_of("segmentation")), inputs, settings_of(config))
    one = View(Networks(task=task_of("classes")), inputs, settings_of(config))
    found = [entropy(view), bald(one), expected_gradient_length(one), margin_drop(one)]
    return [column.tolist() for column in found]


def dear(bench: Bench, config: CampaignConfig) -> Any:
    return sorted(candidate_functions(config))


def ranking(bench: Bench, config: CampaignConfig) -> Any:
    return ranking_by(config.first_ranks), config.diversity


def rescored(bench: Bench, config: CampaignConfig) -> Any:
    return num_rescored(config, 60)


SCORE_EFFECTS: dict[str, tuple[Any, Look]] = {
    "score.dropout": (
        {"score.dropout": "network", "score.acquisition": ["vaal", "bald"], "train.task_network": "vgg16_bn"},
        dear,
    ),
    "score.dropout_passes": (7, scored),
    "score.dropout_rate": (0.25, scored),
    "score.reduction": ("lowest", scored),
    "score.gradient_norms": (False, scored),
    "score.perturbation": (0.1, scored),
    "select.acquisition": ({"select.acquisition": "margin", "select.diversity": "auto"}, ranking),
    "select.rescore_candidates": (
        {
            "select.rescore_candidates": 900,
            "select.acquisition": "dfal",
            "score.acquisition": ["margin", "dfal"],
            "select.diversity": "none",
        },
        rescored,
    ),
}
