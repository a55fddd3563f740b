"""`vaal score`: score the pool with this round's networks."""

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
    from engine.campaign.heartbeat import Progress


def score(
    campaign: CampaignArgument,
    settings: SetOption = [],
    address: AddressOption = "local",
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Stream the whole pool through the encoder and the discriminators."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign.folder import open_campaign

        screen.result(run(screen, open_campaign(campaign, settings), address))


def run(screen: Terminal, campaign: "Campaign", address: str) -> Outcome:
    """The score stage of a round, with its progress bar."""
    from engine.scoring import score as scoring

    with screen.progress("score") as update:

        def on_progress(progress: "Progress") -> None:
            words = f"{progress.items:,} items, {progress.items_per_second:,.0f} items/s, "
            words += f"{progress.shards:,} of {progress.total_shards:,} shards"
            if progress.quarantined:
                words += f", {progress.quarantined:,} bad"
            update(progress.done_bytes / progress.total_bytes, words)

        manifest = scoring.score(campaign, address, on_progress, screen.log)
    counts = manifest["counts"]
    facts = {
        "scored": counts["scored"],
        "quarantined": counts["quarantined"],
        "scores": campaign.stage("scores"),
    }
    if counts["quarantined"]:
        facts["of these"] = ", ".join(f"{count:,} x {name}" for name, count in manifest["errors"].items())
        facts["quarantine"] = campaign.stage("quarantine")
    return Outcome(f"Round {campaign.round:03d}: scored", facts, manifest)
