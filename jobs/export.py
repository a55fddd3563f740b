"""`vaal export`: hand the picked images to a labelling vendor."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.terminal import (
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


class Vendor(StrEnum):
    """Handoff formats."""

    GENERIC = "generic"


def export(
    campaign: CampaignArgument,
    to: Annotated[
        Vendor, typer.Option(help="Handoff format; generic is images with a CSV and a JSON-lines list.")
    ] = Vendor.GENERIC,
    settings: SetOption = [],
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the picked images and their task list for a labelling vendor."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign.folder import open_campaign

        screen.result(run(screen, open_campaign(campaign, settings), to))


def run(screen: Terminal, campaign: "Campaign", vendor: Vendor = Vendor.GENERIC) -> Outcome:
    """The handoff stage of a round, with its progress bar."""
    from engine.handoff import EXPORTERS

    with screen.progress("export") as update:
        manifest = EXPORTERS[vendor](campaign, lambda done, total: update(done / total, f"{done} of {total} images"))
    folder = campaign.stage(f"handoff/{vendor}")
    facts = {
        "images": manifest["counts"]["images"],
        "handoff": folder,
        "tasks": folder / "tasks.csv",
    }
    return Outcome(f"Round {campaign.round:03d}: exported", facts, manifest)
