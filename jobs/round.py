"""`vaal round`: a whole round, restartable at any point."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from jobs.terminal import (
    AddressOption,
    CampaignArgument,
    DebugOption,
    JsonOption,
    Outcome,
    SetOption,
    Terminal,
    terminal,
)

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign


def whole_round(
    campaign: CampaignArgument,
    settings: SetOption = [],
    address: AddressOption = "local",
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train, score, select, export and report. Run it again after an interruption to go on."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign.folder import open_campaign

        opened = open_campaign(campaign, settings)
        outcomes = run(screen, opened, address)
        if json:
            screen.result(Outcome("", {}, {name: outcome.data for name, outcome in outcomes.items()}))


def run(screen: Terminal, campaign: "Campaign", address: str) -> dict[str, Outcome]:
    """All stages of a round in order; one that is complete is left alone. Outcomes by stage."""
    from engine.campaign.folder import is_complete
    from engine.cluster.ray_session import ray_session
    from jobs import export, report, score, select, train

    needs_ray = not (is_complete(campaign.stage("train")) and is_complete(campaign.stage("scores")))
    stages: dict[str, Callable[[], Outcome]] = {
        "train": lambda: train.run(screen, campaign, address),
        "scores": lambda: score.run(screen, campaign, address),
        "selection": lambda: select.run(screen, campaign, address),
        "handoff": lambda: export.run(screen, campaign),
        "report": lambda: report.run(campaign),
    }
    outcomes: dict[str, Outcome] = {}
    with ray_session(address) if needs_ray else nullcontext():
        for name, stage in stages.items():
            outcomes[name] = stage()
            screen.step(outcomes[name])
    return outcomes
