"""`vaal ingest`: take in finished labels."""

from typing import Annotated

import typer

from engine.campaign.stages import DEFAULT_VENDOR
from jobs.terminal import CampaignArgument, Outcome, SetOption, Terminal, VendorName


def ingest(
    screen: Terminal,
    campaign: CampaignArgument,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Finished labels by item_id: CSV, JSON lines or Parquet.")
    ],
    source: Annotated[VendorName, typer.Option("--from", help="The vendor that made the file.")] = DEFAULT_VENDOR,
    replace: Annotated[bool, typer.Option(help="Labels that differ from earlier ones replace them.")] = False,
    settings: SetOption = [],
) -> Outcome:
    """Add finished labels; the next round begins with them. Ingesting a file twice changes nothing."""
    from engine.campaign.corrections import note_on_training
    from engine.campaign.handed_out import picked_items, require_exported
    from engine.campaign.heartbeat import alone
    from engine.campaign.opening import current_round
    from engine.campaign.opening import opened as opened_with
    from engine.handoff.answers import Rules
    from engine.handoff.answers import ingest as append
    from engine.storage.location import Location

    with opened_with(campaign, settings) as opened, alone(opened.home, "ingest"):
        picked, rules = picked_items(opened.home, opened.round + 1), Rules(opened.config.labels.classes, replace)
        require_exported(opened)
        counts = append(opened, Location.of(file), source, picked, rules, screen.log)
    is_any = counts.new + counts.repeated + counts.replaced
    facts = {
        "new labels": counts.new,
        "known already": f"{counts.repeated:,}, {counts.corrected:,} of them corrected since"
        if counts.corrected
        else counts.repeated,
        "replaced": counts.replaced,
        "still blank": counts.blank,
        "new classes": ", ".join(counts.new_classes) or "none",
        **({"of images that changed": counts.changed} if counts.changed else {}),
        "picks still out": counts.out,
        "labels": opened.home / "labels",
        "next": f"vaal round {opened.home.quoted}"
        if is_any
        else f"vaal ingest {opened.home.quoted} FILE, when labels are there",
    }
    if counts.new + counts.replaced and (note := note_on_training(opened)):
        screen.log(note)
    title = f"Ingested; the campaign is in round {current_round(opened.home):03d}"
    return Outcome(title, facts, counts._asdict())
