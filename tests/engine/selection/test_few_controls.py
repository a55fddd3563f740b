"""A selection says in one line that its control arm is too small to say much."""

import re

import pytest

from engine.campaign.stages import Run
from engine.selection.select import select
from tests.conftest import MakeCampaign
from tests.engine.selection.test_completing import scored

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(
    ("budget", "fraction", "words"),
    [
        (
            60,
            0.05,
            "3 control picks say next to nothing .*, and ±10 points take 93, which is much of select.budget=60",
        ),
        (400, 0.05, "20 control picks .* take 93: --set select.control_fraction=0.24"),
        (300, 0.05, "15 control picks .* take 93, which is much of select.budget=300"),
        (100, 0.25, None),
        (100, 0.0, None),
    ],
)
def test_a_control_arm_that_says_next_to_nothing_is_one_line(
    make_campaign: MakeCampaign, budget: int, fraction: float, words: str | None
) -> None:
    log: list[str] = []
    campaign = scored(make_campaign(f"select.budget={budget}", f"select.control_fraction={fraction}"))
    select(campaign, Run(log=log.append))
    found = [line for line in log if "next to nothing" in line]
    assert len(found) == (words is not None)
    assert words is None or re.fullmatch(words, found[0])
