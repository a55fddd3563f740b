"""`vaal status`: what is complete, from storage alone."""

from datetime import timedelta
from typing import Any

from rich.table import Table

from engine.campaign.stages import STAGES, stage_of
from jobs.terminal import CampaignArgument, DebugOption, JsonOption, Outcome, terminal


def status(campaign: CampaignArgument, json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show what is complete and what comes next, without a cluster."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign.opening import open_campaign
        from engine.campaign.status import status as read_status

        state = read_status(open_campaign(campaign, []))
        pool = state["pool"]
        items = "items not counted yet" if pool["items"] is None else f"{pool['items']:,} items"
        facts = {
            "pool": f"{pool['shards']:,} shards, {pool['bytes'] / 1e6:,.1f} MB, {items}, below {pool['root']}",
            "labels": f"{state['labels']['total']:,}, {state['labels']['at_init']:,} of them from init",
            "next": state["next"],
        }
        facts |= _scoring(state["rounds"][-1]["stages"]["scores"])
        if not json:
            screen.show(_table(state["rounds"]))
        screen.result(Outcome(f"{state['campaign']}: round {state['round']:03d}", facts, state))


def _table(rounds: list[dict[str, Any]]) -> Table:
    commands = [stage.command for stage in STAGES]
    table = Table("round", *commands, title_justify="left")
    for entry in rounds:
        cells: dict[str, list[str]] = {command: [] for command in commands}
        for name, state in entry["stages"].items():
            stage = stage_of(name)
            cells[stage.command].append(_cell(stage.name, state))
        table.add_row(f"{entry['round']:03d}", *("\n".join(found) for found in cells.values()))
    return table


def _cell(name: str, state: dict[str, Any]) -> str:
    """A stage in a few words."""
    if not state["complete"]:
        return f"{state['committed_shards']} of {state['shards']} shards" if name == "scores" else "-"
    words = {
        "train": "{steps:,} steps\nsignal {signal}, AUC {auc:.2f}",
        "scores": "{scored:,} items\n{quarantined:,} bad",
        "selection": "{picked:,} picked",
        "handoff": "{images:,} images",
    }
    return words.get(name, "done").format(**state)


def _scoring(scores: dict[str, Any]) -> dict[str, Any]:
    """How far a run is that has not ended, and what is in quarantine."""
    facts: dict[str, Any] = {}
    if "items" in scores:
        facts["scoring"] = f"{scores['items']:,} items in {scores['committed_shards']:,} of {scores['shards']:,} shards"
        if scores["is_running"]:
            facts["scoring"] += f", {scores['items_per_second']:,.0f} items/s"
            if scores["seconds_left"] is not None:
                facts["scoring"] += f", {timedelta(seconds=scores['seconds_left'])} left"
            facts["scoring"] += f", on {scores['host']}"
        else:
            facts["scoring"] += f"; not running, last sign of life {scores['at'][:19]} UTC from {scores['host']}"
    if scores.get("errors"):
        classes = ", ".join(f"{count:,} x {name}" for name, count in scores["errors"].items())
        facts["quarantine"] = classes
    return facts
