"""`vaal score`: score the pool with this round's networks."""

import time
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
    from engine.campaign import Campaign


def score(
    campaign: CampaignArgument,
    settings: SetOption = [],
    address: AddressOption = "local",
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Stream the whole pool through the encoder and the discriminators."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign import open_campaign

        screen.result(run(screen, open_campaign(campaign, settings), address))


def run(screen: Terminal, campaign: "Campaign", address: str) -> Outcome:
    """The score stage of a round, with its progress bar."""
    from engine import scoring

    with screen.progress("score") as update:
        first: list[tuple[float, int]] = []

        def on_progress(progress: scoring.Progress) -> None:
            now, count = time.monotonic(), progress.num_items
            if not first:
                first.append((now, count))
            # Counted from the first chunk, so that the seconds in which Ray starts do not hide the speed.
            speed = (count - first[0][1]) / (now - first[0][0]) if now > first[0][0] else 0.0
            update(progress.done_bytes / progress.total_bytes, f"{count:,} items, {speed:,.0f} items/s")

        manifest = scoring.score(campaign, address, on_progress, screen.log)
    counts = manifest["counts"]
    facts = {
        "scored": counts["scored"],
        "quarantined": counts["quarantined"],
        "scores": campaign.stage("scores"),
    }
    if counts["quarantined"]:
        facts["quarantine"] = campaign.stage("quarantine")
    return Outcome(f"Round {campaign.round:03d}: scored", facts, manifest)
