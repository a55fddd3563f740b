"""What a campaign has and what comes next, read from its storage alone."""

from typing import Any

from engine.campaign.folder import HANDOFFS, Campaign, is_complete, round_home
from engine.campaign.heartbeat import is_living, read_heartbeat
from engine.campaign.labels import read_labels
from engine.pool.manifest import read_shards
from engine.storage.location import Location

STAGES = ("train", "scores", "selection", *HANDOFFS, "report")


def status(campaign: Campaign) -> dict[str, Any]:
    """The state of every round up to the current one, as plain values."""
    home = campaign.home
    shards = read_shards(home)
    labels = read_labels(home)["round"].to_pylist()
    rounds = [_round_status(round_home(home, number), number, len(shards)) for number in range(campaign.round + 1)]
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
        "next": _next(campaign, rounds[-1]),
    }


def _round_status(folder: Location, number: int, num_shards: int) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    for name in STAGES:
        stage = folder / name
        if is_complete(stage):
            manifest = (stage / "manifest.json").read_json()
            stages[name] = {"complete": True, "at": manifest["completed_at"], **manifest["counts"]}
            if name == "train" and "signal" in manifest:
                found = {key: manifest["diagnosis"][key] for key in ("auc", "auc_low", "auc_high", "findings")}
                stages[name] |= {"signal": manifest["signal"], **found}
            if name == "scores":
                stages[name]["errors"] = manifest.get("errors", {})
        elif name == "scores":
            stages[name] = _scoring_status(folder, num_shards)
        else:
            stages[name] = {"complete": False}
    return {"round": number, "stages": stages}


def _scoring_status(folder: Location, num_shards: int) -> dict[str, Any]:
    """How far scoring is: as a run says that lives, maybe on another machine, or as the files say."""
    beat = read_heartbeat(folder / "ledger" / "progress.json")
    is_running = beat is not None and is_living(beat)
    shards = beat["shards"] if beat and is_running else len((folder / "scores").children())
    state = {"complete": False, "committed_shards": shards, "shards": num_shards}
    if beat:
        state["is_running"] = is_running
        state |= {key: beat[key] for key in ("at", "host", "items", "items_per_second", "seconds_left", "errors")}
        state["quarantined"] = sum(beat["errors"].values())
    return state


def _next(campaign: Campaign, latest: dict[str, Any]) -> str:
    """The command that goes on from here."""
    if all(stage["complete"] for stage in latest["stages"].values()):
        return f"vaal ingest {campaign.home} FILE"
    return f"vaal round {campaign.home}"
