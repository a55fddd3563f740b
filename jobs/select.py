"""`vaal select`: pick exactly b images."""

from typing import TYPE_CHECKING

from jobs.terminal import (
    CampaignArgument,
    DebugOption,
    JsonOption,
    Outcome,
    SetOption,
    terminal,
)

if TYPE_CHECKING:
    from engine.campaign import Campaign


def select(
    campaign: CampaignArgument,
    settings: SetOption = [],
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Pick exactly select.budget images: those that look least like labelled ones."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign import open_campaign

        screen.result(run(open_campaign(campaign, settings)))


def run(campaign: "Campaign") -> Outcome:
    """The selection stage of a round."""
    from engine import selection

    manifest = selection.select(campaign)
    highest = manifest["highest_picked_logit"]
    facts = {
        "picked": manifest["counts"]["picked"],
        "out of": manifest["counts"]["candidates"],
        "how": selection.REASONS[manifest.get("when_no_signal")],
        **({} if highest is None else {"highest logit picked": f"{highest:.4f}"}),
        "selection": campaign.stage("selection") / "selection.parquet",
    }
    return Outcome(f"Round {campaign.round:03d}: selected", facts, manifest)
