"""`vaal status`: what is complete, from storage alone."""

import time
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from engine.campaign.stages import STAGES, Stage, stage_of
from engine.config.texts import plural
from jobs.round import not_sent
from jobs.terminal import STAGE_NAMES, CampaignArgument, Outcome, StageName, Terminal, when_closed

WORDS = {
    "scores": "{scored:,} items\n{quarantined:,} bad",
    "selection": "{picked:,} picked\n{how}",
    "handoff": "{images:,} images",
}
"""A complete stage in a few words; without an entry it is "done"."""
LOOK_SECONDS = 2.0
WORD_SECONDS = 300.0
"""Between two lines about the same wait."""


def status(
    screen: Terminal,
    campaign: CampaignArgument,
    wait: Annotated[
        StageName | None,
        typer.Option("--wait", metavar="STAGE", help=f"Wait until this stage of the round is complete: {STAGE_NAMES}."),
    ] = None,
) -> Outcome:
    """Show what is complete and what comes next, without a cluster."""
    if wait:
        _wait_for(screen, campaign, stage_of(wait))
    from engine.campaign.labels import read_snapshot
    from engine.campaign.ledger import WORD_COLUMNS, read_ledger
    from engine.campaign.opening import open_campaign
    from engine.campaign.status import status as read_status
    from engine.campaign.unlabelled import begins_without_labels, in_words
    from engine.report.control_words import control_lines, control_values, read_control

    opened = open_campaign(campaign)
    snapshot = read_snapshot(opened.home, WORD_COLUMNS)
    ledger = read_ledger(opened, snapshot)
    control = read_control(opened, snapshot, ledger)
    is_first, state = begins_without_labels(opened), read_status(opened, snapshot, ledger)
    state |= {"control_arm": control_values(control), "without_labels": is_first}
    pool = state["pool"]
    items = "items not counted yet" if pool["items"] is None else plural(pool["items"], "item")
    facts = {
        "pool": f"{plural(pool['shards'], 'shard')}, {pool['bytes'] / 1e6:,.1f} MB, {items}, below {pool['root']}",
        **_changes_of(pool),
        **_trained_in_words(state["rounds"]),
        **({"this round": in_words(opened)} if is_first else {}),
        "labels": f"{state['labels']['total']:,}, {sum(state['labels']['by_round'].values()):,} of them from rounds",
        **({"control arm": lines} if (lines := control_lines(control)) else {}),
        **_out(state["rounds"]),
        **_answers(state["answers"]),
        **_settings(state["rounds"][-1]["settings"]),
        **_kept_out(state["rounds"][-1]["stages"]["selection"]),
        **({"not sent yet": not_sent(state["answers"]["waiting"], state["send"])} if state["send"] else {}),
        "next": state["next"],
        **_training(state["rounds"][-1]["stages"]["train"]),
        **_scoring(state["rounds"][-1]["stages"]["scores"]),
    }
    title = f"{state['campaign']}: round {state['round']:03d}"
    return Outcome(title, facts, state, above=_table(state["rounds"]))


def _changes_of(pool: dict[str, Any]) -> dict[str, Any]:
    """What joined the pool for the next round, what left it, and what could join it."""
    left = [f"{plural(count, 'shard')} {why}" for why, count in pool["left"].items() if count]
    return {
        **({"joins the next round": plural(pool["joining"], "shard")} if pool["joining"] else {}),
        **({"left the pool": ", ".join(left)} if left else {}),
        **({"new shards": pool["note"]} if pool["note"] else {}),
    }


def _wait_for(screen: Terminal, url: str, stage: Stage) -> None:
    """Return when a stage of the campaign's round is complete, or the round has ended."""
    from engine.campaign.handed_out import completed
    from engine.campaign.opening import current_round, open_campaign

    opened, said_at = open_campaign(url), -WORD_SECONDS
    while not completed(opened, stage.name) and current_round(opened.home) == opened.round:
        if time.monotonic() - said_at >= WORD_SECONDS:
            said_at = time.monotonic()
            screen.log(f"waiting until {stage.command} of round {opened.round:03d} is complete; Ctrl-C ends this")
        time.sleep(LOOK_SECONDS)


def _out(rounds: list[dict[str, Any]]) -> dict[str, str]:
    """What became of the batches of which images have no label, by batch."""
    facts = {}
    for entry in rounds:
        for batch in entry["batches"]:
            if batch["without_label"]:
                states = ", ".join(f"{count:,} {name}" for name, count in batch["states"].items())
                facts[f"{batch['batch']}, round {entry['round']:03d}"] = states
    return facts


def _answers(answers: dict[str, Any]) -> dict[str, str]:
    """How far the answers of the round are, and when it ends."""
    if not answers["total"]:
        return {}
    done = f"{answers['done']:,} of {answers['total']:,} picks settled"
    return {"answers": f"{done}; the round ends when {when_closed(answers['close_when'])}"}


def _settings(values: dict[str, Any]) -> dict[str, str]:
    return {"set in this round": ", ".join(f"{key}={value}" for key, value in values.items())} if values else {}


def _kept_out(selection: dict[str, Any]) -> dict[str, list[str]]:
    """How many images the options of the selection kept out."""
    from engine.pool.exclusions import lines_on_kept_out

    return {"kept out": lines} if (lines := lines_on_kept_out(selection)) else {}


def _table(rounds: list[dict[str, Any]]) -> Table:
    # What is too long for the screen goes on in the next line, and is not cut. The words of training stay together.
    names = ("round", *(stage.command for stage in STAGES))
    columns = (Column(name, overflow="fold", no_wrap=name == "train") for name in names)
    table = Table(*columns, title_justify="left")
    for entry in rounds:
        cells: dict[str, list[str]] = {stage.name: [] for stage in STAGES}
        for name, state in entry["stages"].items():
            stage = stage_of(name).name
            cells[stage].append(_cell(stage, state, entry))
        table.add_row(f"{entry['round']:03d}", *map("\n".join, cells.values()))
    return table


def _cell(name: str, state: dict[str, Any], entry: dict[str, Any]) -> str:
    if not state["complete"]:
        return f"{state['committed_shards']} of {state['shards']} shards" if name == "scores" else "-"
    if name == "train":
        return "\n".join(_trained(state, entry["ranks"]))
    by = (entry["decided_by"] or "no score").replace("_", " ")
    found = WORDS.get(name, "done").format(**state, how=f"by {by}")
    return found + (f"\n{state['forgotten']:,} forgotten" if state.get("forgotten") else "")


def _trained(state: dict[str, Any], ranks: str) -> list[str]:
    """How good the task learner is, and of VAAL, where it ranks, what its discriminators can tell, in short."""
    from engine.models.diagnosis import NOT_TRAINED
    from engine.models.task_words import task_in_short

    learned = [task_in_short(state["task"])] if state["task"] else []
    if not state["is_trained"]:
        return learned or [NOT_TRAINED]
    lines = [plural(state["steps"], "step"), *learned]
    return [*lines, f"AUC {state['auc']:.2f}"] if ranks == "vaal" else lines


def _trained_in_words(rounds: list[dict[str, Any]]) -> dict[str, list[str]]:
    """How good both are in the newest round that was trained, in words and with intervals."""
    from engine.models.diagnosis import signal_text
    from engine.models.task_words import how_good

    trained = [entry for entry in rounds if entry["stages"]["train"]["complete"]]
    if not trained:
        return {}
    entry, state = trained[-1], trained[-1]["stages"]["train"]
    lines = []
    if state["task"]:
        lines.append(f"task learner (T): {how_good(state['task'], state['config'], state.get('labelled'))}")
    if state["is_trained"] and entry["ranks"] == "vaal":
        other = entry["decided_by"] if entry["decided_by"] not in (None, "vaal") else None
        decided = "" if other is None else f"; {other.replace('_', ' ') or 'no score'} decided what was picked"
        lines.append(f"VAAL: {signal_text(state['signal'], state)}{decided}")
    return {f"training, round {entry['round']:03d}": lines} if lines else {}


def _training(train: dict[str, Any]) -> dict[str, str]:
    """How far training is that has not ended."""
    if "total_steps" not in train:
        return {}
    return {"training": f"step {train['steps']:,} of {train['total_steps']:,}{_life(train)}"}


def _life(state: dict[str, Any]) -> str:
    """The time left of a run, and where it is; or that it is no more."""
    if not state["is_running"]:
        return f"; not running, last sign of life {state['at'][:19]} UTC from {state['host']}"
    left = f", {timedelta(seconds=state['seconds_left'])} left" if state["seconds_left"] is not None else ""
    return f"{left}, on {state['host']}"


def _scoring(scores: dict[str, Any]) -> dict[str, str]:
    """How far scoring is that has not ended, and what is in quarantine."""
    facts = {}
    if "items" in scores:
        words = f"{scores['items']:,} items in {scores['committed_shards']:,} of {scores['shards']:,} shards"
        if scores["is_running"]:
            words += f", {scores['items_per_second']:,.0f} items/s"
        facts["scoring"] = words + _life(scores)
    if scores.get("errors"):
        facts["quarantine"] = ", ".join(f"{count:,} x {name}" for name, count in scores["errors"].items())
    return facts
