"""What a campaign has and what comes next, read from its storage alone."""

from typing import Any

from engine.campaign.folder import Campaign, completed, round_home
from engine.campaign.heartbeat import is_living, read_heartbeat
from engine.campaign.labels import read_labels
from engine.campaign.manifests import Manifest, ScoresManifest, TrainManifest
from engine.campaign.stages import DEFAULT_VENDOR, STAGES
from engine.pool.manifest import read_shards
from engine.storage.documents import read_document
from engine.storage.location import Location


def status(campaign: Campaign) -> dict[str, Any]:
    """The state of every round up to the current one, as plain values."""
    home = campaign.home
    shards = read_shards(home)
    labels = read_labels(home)["round"].to_pylist()
    rounds = [_round_status(round_home(home, number), number, len(shards)) for number in range(campaign.round + 1)]
    is_over = all(completed(campaign.round_home, stage.name) for stage in STAGES)
    return {
        "campaign": str(home),
        "round": campaign.round,
        "pool": {
            "root": campaign.config.pool.root,
            "shards": len(shards),
            "bytes": sum(shard.size_bytes for shard in shards),
            "items": None if any(s.num_items is None for s in shards) else sum(s.num_items or 0 for s in shards),
        },
        "labels": {
            "total": len(labels),
            "at_init": labels.count(None),
            "by_round": {str(number): labels.count(number) for number in range(campaign.round)},
        },
        "rounds": rounds,
        "next": f"vaal ingest {home} FILE" if is_over else f"vaal round {home}",
    }


def _round_status(folder: Location, number: int, num_shards: int) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    for stage in STAGES:
        found = completed(folder, stage.name)
        for complete in found:
            stages[complete.url.removeprefix(f"{folder}/")] = _complete_status(complete, stage.name)
        if not found and stage.name == "scores":
            stages[stage.name] = _scoring_status(folder, num_shards)
        elif not found:
            name = f"{stage.name}/{DEFAULT_VENDOR}" if stage.name == "handoff" else stage.name
            stages[name] = {"complete": False}
    return {"round": number, "stages": stages}


def _complete_status(folder: Location, name: str) -> dict[str, Any]:
    file = folder / "manifest.json"
    manifest = read_document(file, Manifest)
    state: dict[str, Any] = {"complete": True, "at": manifest["completed_at"], **manifest["counts"]}
    if name == "train":
        trained = read_document(file, TrainManifest)
        state["signal"] = trained["signal"]
        state |= {key: trained["diagnosis"][key] for key in ("auc", "auc_low", "auc_high", "findings")}
    if name == "scores":
        state["errors"] = read_document(file, ScoresManifest)["errors"]
    return state


def _scoring_status(folder: Location, num_shards: int) -> dict[str, Any]:
    """How far scoring is: as a run that lives reports, maybe on another machine, or as the files show."""
    beat = read_heartbeat(folder / "ledger" / "progress.json")
    is_running = beat is not None and is_living(beat)
    shards = beat["shards"] if beat and is_running else len((folder / "scores").children())
    state: dict[str, Any] = {"complete": False, "committed_shards": shards, "shards": num_shards}
    if beat:
        state["is_running"] = is_running
        state |= {key: beat[key] for key in ("at", "host", "items", "items_per_second", "seconds_left", "errors")}
        state["quarantined"] = sum(beat["errors"].values())
    return state
