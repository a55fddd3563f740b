"""`vaal select`: pick exactly b images."""

from typing import TYPE_CHECKING, Annotated

import typer

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


def select(
    campaign: CampaignArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Pick other images besides those that were handed out, which are recorded.")
    ] = False,
    explain: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SHARD KEY", help="Pick nothing; say why this item was picked, or was not."),
    ] = None,
    settings: SetOption = [],
    address: AddressOption = "local",
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Pick exactly select.budget images: those that look least like labelled ones, no two alike, and a control arm."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign.folder import open_campaign

        if explain:
            screen.result(_explanation(open_campaign(campaign, []), *explain))
        else:
            opened = open_campaign(campaign, settings, force=force)
            screen.result(run(screen, opened, address, force=force))


def run(screen: Terminal, campaign: "Campaign", address: str, *, force: bool = False) -> Outcome:
    """The selection stage of a round, with its progress bar."""
    from engine.selection import select as stage
    from engine.selection.duplicates import KINDS

    with screen.progress("select") as update:
        manifest = stage.select(campaign, address, lambda share: update(share, ""), screen.log, force=force)
    counts, highest = manifest["counts"], manifest["highest_picked_logit"]
    duplicates = {kind: counts[f"duplicates_{kind}"] for kind in KINDS}
    found = ", ".join(f"{count:,} of the same {kind}" for kind, count in duplicates.items() if count)
    facts = {
        "picked": counts["picked"],
        "for control": counts["control"],
        "candidates": f"{counts['candidates']:,} of {counts['eligible']:,}",
        "duplicates": found or "none",
        "how": stage.reason_of(manifest),
        **({} if highest is None else {"highest logit picked": f"{highest:.4f}"}),
        "selection": campaign.stage("selection") / "selection.parquet",
    }
    return Outcome(f"Round {campaign.round:03d}: selected", facts, manifest)


def _explanation(campaign: "Campaign", shard: str, key: str) -> Outcome:
    from engine.selection.explanation import explain

    found = explain(campaign, shard, key)
    facts = {name: value for name, value in found.items() if name not in ("shard", "key", "outcome")}
    return Outcome(f"Round {campaign.round:03d}: {shard} {key}: {found['outcome']}", facts, found)
