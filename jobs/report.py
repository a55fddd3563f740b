"""`vaal report`: one page about a round."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.terminal import (
    CampaignArgument,
    DebugOption,
    JsonOption,
    Outcome,
    SetOption,
    terminal,
)

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign


def report(
    campaign: CampaignArgument,
    round_number: Annotated[
        int | None, typer.Option("--round", help="An earlier round; by default the current one.")
    ] = None,
    settings: SetOption = [],
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write one self-contained page: the picked images, the scores, the training."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign.folder import open_campaign

        screen.result(run(open_campaign(campaign, settings, round_number)))


def run(campaign: "Campaign") -> Outcome:
    """The report stage of a round."""
    from engine.report import report as page

    manifest = page.write_report(campaign)
    facts = {"report": campaign.stage("report") / "report.html"}
    return Outcome(f"Round {campaign.round:03d}: reported", facts, manifest)
