"""`vaal clean` and `vaal verify`: what a campaign's folder need not hold, and whether it is whole."""

from typing import Annotated, Any

import typer

from engine.config.texts import plural
from jobs.plan import size_text
from jobs.terminal import CampaignArgument, Outcome, Terminal

FAULTY = 4
"""The exit status of `vaal verify` where a file is not what was committed."""


def clean(
    screen: Terminal,
    campaign: CampaignArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed. Without it nothing is deleted.")] = False,
    scores_older_than: Annotated[
        int | None,
        typer.Option(
            "--scores-older-than",
            min=1,
            metavar="ROUNDS",
            help="Also the scores of rounds that are more than so many rounds before the present one.",
        ),
    ] = None,
) -> Outcome:
    """List what may be deleted, with sizes and reasons, and delete it with --yes."""
    from engine.campaign.cleaning import remove, waste_of
    from engine.campaign.heartbeat import alone
    from engine.campaign.opening import open_campaign

    opened = open_campaign(campaign)
    with alone(opened.home, "clean"):
        found = waste_of(opened, scores_older_than)
        for waste in found if yes else ():
            remove(waste)
            screen.log(f"deleted: {waste.folder}: {plural(len(waste.files), 'file')}")
    rows: list[dict[str, Any]] = [
        {"folder": str(waste.folder), "files": len(waste.files), "bytes": waste.num_bytes, "why": waste.why}
        for waste in found
    ]
    total, num_files = sum(row["bytes"] for row in rows), sum(row["files"] for row in rows)
    facts: dict[str, Any] = {
        row["folder"]: f"{plural(row['files'], 'file')}, {size_text(row['bytes'])}: {row['why']}" for row in rows
    }
    older = f" --scores-older-than {scores_older_than}" if scores_older_than else ""
    if rows and not yes:
        facts["to delete them"] = f"vaal clean {opened.home.quoted}{older} --yes"
    amount = f"{plural(num_files, 'file')}, {size_text(total)}"
    title = f"Deleted: {amount}" if yes else f"May be deleted: {amount}"
    data = {"campaign": str(opened.home), "deleted": yes, "bytes": total, "files": num_files, "waste": rows}
    return Outcome(title if rows else "Nothing to delete", facts, data)


def verify(screen: Terminal, campaign: CampaignArgument) -> Outcome:
    """Compare every committed file with the hash that its manifest names. Exit status 4 if one differs or is gone."""
    from engine.campaign.opening import open_campaign
    from engine.campaign.verifying import verify as verify_campaign

    opened = open_campaign(campaign)
    with screen.progress("verify") as update:
        found = verify_campaign(opened, lambda share: update(share, "reading"))
    for fault in found.faults:
        screen.log(fault)
    num = len(found.faults)
    title = f"{plural(found.num_files, 'file')}: {plural(num, 'fault') if num else 'all are as they were committed'}"
    data = {"campaign": str(opened.home), "files": found.num_files, "faults": found.faults}
    return Outcome(title, {}, data, FAULTY if num else 0)
