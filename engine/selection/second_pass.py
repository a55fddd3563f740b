"""What candidates get when they are scored a second time: the score that ranks, if it is dear, and what a choice by
the task learner's features needs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.campaign.stages import Run
from engine.config.options import CampaignConfig
from engine.selection.order import ranking_by
from engine.selection.reduction import first
from vaal.acquisition import column_of
from vaal.diversity import DIVERSIFIERS

RESCORED_FOR_EACH = 10
"""Candidates for each pick that are scored again, where select.rescore_candidates=auto."""
Floats = NDArray[np.float32]


class SecondPass(NamedTuple):
    """Tables of the candidates, in the order of the ranking, and of what is taken, where a choice asks for it: each
    with the column `feature`; and the function that gives the answers of features: see `vaal.diversity`."""

    candidates: pa.Table
    taken: pa.Table
    answers: Callable[[Floats], Floats]


def num_rescored(config: CampaignConfig, size: int) -> int:
    """How many of the lowest of the first pass are scored again, for `size` candidates."""
    wanted = config.select.rescore_candidates
    if not config.is_dear(config.select.acquisition):
        return size
    return max(size, RESCORED_FOR_EACH * config.select.budget if wanted == "auto" else wanted)


def second_pass(campaign: Campaign, lowest: pa.Table, taken: pa.Table, size: int, run: Run) -> SecondPass:
    """Score again what is lowest by the first pass, and keep the `size` lowest by the score that ranks.

    Raises InputError if a shard changed or cannot be read.
    """
    from engine.scoring.again import score_again

    config, acquisition = campaign.config, campaign.config.select.acquisition
    has_taken = "labelled_feature_LD" in DIVERSIFIERS[config.diversity].needs
    parts = [lowest, taken if has_taken else taken.slice(0, 0)]
    asked = [part.append_column("is_taken", pa.repeat(number > 0, len(part))) for number, part in enumerate(parts)]
    found = score_again(campaign, pa.concat_tables(asked), run)
    is_taken, found = found["is_taken"], found.drop_columns(["is_taken"])
    candidates, others = found.filter(pc.invert(is_taken)), found.filter(is_taken)
    if config.is_dear(acquisition):
        place = candidates.schema.get_field_index("score")
        candidates = candidates.set_column(place, "score", candidates[column_of(acquisition)])
        candidates = first(candidates, size, ranking_by(acquisition))
    return SecondPass(candidates, others, _answers_of(campaign))


def _answers_of(campaign: Campaign) -> Callable[[Floats], Floats]:
    import torch

    from engine.scoring.score import inputs_of
    from engine.scoring.scorer import networks_of

    task = networks_of(campaign.stage("train"), campaign.config, inputs_of(campaign, is_again=True)).task
    assert task is not None

    def answers(feature_MD: Floats) -> Floats:
        with torch.inference_mode():
            logit_MC = task.head(torch.from_numpy(feature_MD))
            if task.kind == "labels":
                p_MC = logit_MC.sigmoid()
                found: Any = p_MC - (p_MC > 0.5).float()
            else:
                found = logit_MC.softmax(dim=1)
                found[torch.arange(len(found)), logit_MC.argmax(dim=1)] -= 1
        return found.numpy()  # type: ignore[no-any-return]

    return answers
