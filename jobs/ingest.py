"""`vaal ingest`: take in finished labels."""

from typing import Annotated

import typer

from engine.campaign.stages import DEFAULT_VENDOR
from jobs.terminal import CampaignArgument, Outcome, Terminal, VendorName


def ingest(
    _: Terminal,
    campaign: CampaignArgument,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Finished labels by item_id: CSV, JSON lines or Parquet.")
    ],
    source: Annotated[VendorName, typer.Option("--from", help="The vendor that made the file.")] = DEFAULT_VENDOR,
) -> Outcome:
    """Add finished labels; the next round begins with them. Ingesting a file twice changes nothing."""
    from engine.campaign.heartbeat import alone
    from engine.campaign.opening import current_round, open_campaign
    from engine.campaign.outstanding import picked_items
    from engine.handoff.answers import ingest as append
    from engine.storage.location import Location

    opened = open_campaign(campaign)
    with alone(opened.home, "ingest"):
        counts = append(opened.home, Location.of(file), source, picked_items(opened.home, opened.round + 1))
    facts = {
        "new labels": counts.new,
        "known already": counts.repeated,
        "still blank": counts.blank,
        "labels": opened.home / "labels",
        "next": f"vaal round {opened.home}",
    }
    title = f"Ingested; the campaign is in round {current_round(opened.home):03d}"
    return Outcome(title, facts, counts._asdict())
