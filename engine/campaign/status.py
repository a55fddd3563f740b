"""What a campaign has and what comes next, read from its storage alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from engine.campaign.advice import next_command, send_command
from engine.campaign.decided import decided_by, ranks
from engine.campaign.folder import Campaign, is_complete, read_overrides
from engine.campaign.handed_out import completed, vendor_of
from engine.campaign.heartbeat import PROGRESS_FILE, Beat, TrainBeat, read_heartbeat
from engine.campaign.labels import Snapshot, read_snapshot
from engine.campaign.ledger import WORD_COLUMNS, Ledger, read_ledger
from engine.campaign.manifests import (
    Manifest,
    ScoresManifest,
    SelectionManifest,
    TrainManifest,
    read_complete,
    read_manifest,
)
from engine.campaign.matching import news_in_words, news_of
from engine.campaign.settling import progress_of
from engine.campaign.stages import DEFAULT_VENDOR, STAGES
from engine.config.hook_options import shown
from engine.pool.manifest import read_shards
from engine.pool.shard import FORGOTTEN, GONE
from engine.storage.location import Location
from engine.tables.scores import without_forgotten


def status(campaign: Campaign, snapshot: Snapshot | None = None, ledger: Ledger | None = None) -> dict[str, Any]:
    """The state of every round up to the current one, as plain values. `snapshot` and `ledger` are the labels and the
    ledger, if they are read already."""
    home, snapshot = campaign.home, snapshot or read_snapshot(campaign.home, WORD_COLUMNS)
    # Before there is a ledger: which labels count takes as much memory for a moment.
    rounds_of = snapshot.labels["round"].value_counts()
    by_round = dict(zip(*(rounds_of.field(name).to_pylist() for name in ("values", "counts")), strict=True))
    known, ledger = read_shards(home), ledger or read_ledger(campaign, snapshot)
    shards, news = known.in_round(campaign.round), news_of(campaign)
    rounds: list[dict[str, Any]] = [
        {
            "round": number,
            "stages": _stages(replace(campaign, round=number), int(np.count_nonzero(known.are_in(number)))),
            **_ranks(replace(campaign, round=number)),
            "settings": _shown(read_overrides(home, number)),
            "batches": [_batch_state(ledger, place) for place in ledger.of_round(number)],
        }
        for number in range(campaign.round + 1)
    ]
    progress, counts = progress_of(campaign, ledger), shards.table["num_items"]
    return {
        "campaign": str(home),
        "round": campaign.round,
        "pool": {
            "root": campaign.config.pool.root,
            "shards": len(shards),
            "bytes": shards.num_bytes,
            "items": None if counts.null_count else pc.sum(counts).as_py() or 0,
            "joining": int(np.count_nonzero((known.table["joined"].to_numpy() > campaign.round) & ~known.have_left)),
            "left": {why: int(known.left_as(why).sum()) for why in (GONE, FORGOTTEN)},
            "new": len(news.new),
            "first_new": news.new[0].url if news.new else None,
            "fault": news.fault or None,
            "note": news_in_words(campaign, news) or None,
        },
        "labels": {
            "total": sum(by_round.values()),
            "at_init": by_round.get(None, 0),
            "by_round": {str(number): by_round.get(number, 0) for number in range(campaign.round)},
        },
        "answers": {**progress._asdict(), "close_when": campaign.config.labels.close_when},
        "rounds": rounds,
        "next": next_command(campaign, ledger, progress),
        "send": send_command(campaign, ledger) if progress.waiting else None,
    }


def _shown(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the secrets in them."""
    return {key: shown(value) if key == "hooks.on_stage" else value for key, value in settings.items()}


def _stages(campaign: Campaign, num_shards: int) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    for stage in STAGES:
        folders = completed(campaign, stage.name)
        for folder in folders:
            name = f"handoff/{vendor_of(folder)}" if stage.name == "handoff" else stage.name
            stages[name] = _complete_state(folder, stage.name)
        if not folders and stage.name == "scores":
            stages[stage.name] = _scoring_state(campaign, num_shards)
        elif not folders and stage.name == "train":
            stages[stage.name] = {"complete": False, **_training_state(campaign)}
        elif not folders:
            stages[f"handoff/{DEFAULT_VENDOR}" if stage.name == "handoff" else stage.name] = {"complete": False}
    return stages


def _ranks(campaign: Campaign) -> dict[str, str | None]:
    """The acquisition function that ranks in the campaign's round, and the one that decided what was picked: "" where
    none did, None where nothing is picked yet."""
    if not is_complete(campaign.stage("selection")):
        return {"ranks": campaign.config.select.acquisition, "decided_by": None}
    selection = read_manifest(campaign, "selection", SelectionManifest)
    return {"ranks": ranks(selection), "decided_by": decided_by(selection)}


def _batch_state(ledger: Ledger, place: int) -> dict[str, Any]:
    """How many images a batch has, how many of them have no label yet, and how many are in each state."""
    batch = ledger.batches[place]
    own = ledger.sent.slice_of(place)
    item_N = ledger.item_R[own][~ledger.gold_R[own]]
    return {
        "batch": batch.folder.name,
        "vendor": batch.vendor,
        "images": len(item_N),
        "without_label": len(np.unique(item_N[~ledger.labelled_U[item_N]])),
        "states": ledger.counts(place),
    }


def _complete_state(folder: Location, name: str) -> dict[str, Any]:
    kinds: dict[str, type[Manifest]] = {"train": TrainManifest, "scores": ScoresManifest}
    manifest: Any = read_complete(folder, name, kinds.get(name, Manifest))
    state: dict[str, Any] = {"complete": True, "at": manifest["completed_at"], **manifest["counts"]}
    if name == "train":
        state["signal"] = manifest["signal"]
        shown = ("auc", "auc_low", "auc_high", "findings", "lift")
        state |= {key: manifest["diagnosis"].get(key) for key in shown}
        state["is_trained"] = manifest["diagnosis"].get("is_trained", True)
        # The probe tells networks apart, and nobody anything.
        task, config = manifest.get("task"), manifest["config"]
        state["task"] = task and {name: value for name, value in task.items() if name != "probe"}
        asked = (("train", "task"), ("task", "model"))
        state["config"] = {section: {name: config.get(section, {}).get(name)} for section, name in asked}
    if name == "scores":
        state["errors"], state["forgotten"] = without_forgotten(manifest["errors"])
        state["quarantined"] -= state["forgotten"]
    return state


def _training_state(campaign: Campaign) -> dict[str, Any]:
    """How far training is, as its run reports it on any machine; empty where none did."""
    beat, is_running = read_heartbeat(campaign.stage("train") / PROGRESS_FILE, TrainBeat)
    if beat is None:
        return {}
    return {
        "is_running": is_running,
        **{key: beat[key] for key in ("at", "host", "steps", "total_steps", "seconds_left")},
    }


def _scoring_state(campaign: Campaign, num_shards: int) -> dict[str, Any]:
    """How far scoring is: as a living run on any machine reports it, else as the files show."""
    beat, is_running = read_heartbeat(campaign.stage("ledger") / PROGRESS_FILE, Beat)
    shards = beat["shards"] if beat and is_running else len(campaign.stage("scores").children())
    state: dict[str, Any] = {"complete": False, "committed_shards": shards, "shards": num_shards}
    if beat:
        state["is_running"] = is_running
        state |= {key: beat[key] for key in ("at", "host", "items", "items_per_second", "seconds_left", "errors")}
        state["errors"], state["forgotten"] = without_forgotten(beat["errors"])
        state["quarantined"] = sum(state["errors"].values())
    return state
