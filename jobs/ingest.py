"""`vaal ingest`: take in finished labels."""

from typing import Annotated

import typer

from engine.campaign.stages import DEFAULT_VENDOR
from jobs.terminal import CampaignArgument, DebugOption, JsonOption, Outcome, VendorName, terminal


def ingest(
    campaign: CampaignArgument,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Finished labels by item_id: CSV, JSON lines or Parquet.")
    ],
    source: Annotated[
        VendorName, typer.Option("--from", help="The vendor whose format the file has.")
    ] = DEFAULT_VENDOR,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Append finished labels; the next round begins with them. A file may be ingested twice without harm."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign.opening import open_campaign
        from engine.campaign.outstanding import picked_items
        from engine.handoff.answers import ingest as append
        from engine.storage.location import Location

        opened = open_campaign(campaign, [])
        counts = append(opened.home, Location.of(file), source, picked_items(opened.home, opened.round + 1))
        after = open_campaign(campaign, [])
        facts = {
            "new labels": counts.new,
            "known already": counts.repeated,
            "still blank": counts.blank,
            "labels": after.home / "labels",
            "next": f"vaal round {after.home}",
        }
        screen.result(Outcome(f"Ingested; the campaign is in round {after.round:03d}", facts, counts._asdict()))
