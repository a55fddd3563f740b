"""The networks of the round before, where nothing that they learn from has changed: training again would cost the same
hours for nothing that is new."""

import hashlib
import importlib.metadata
import json
from dataclasses import replace
from typing import Any

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.manifests import TrainManifest, read_manifest, write_manifest
from engine.campaign.stages import Log, stage_of
from engine.config.options import CampaignConfig, changes_results, fields
from engine.errors import InputError
from engine.models.encoders import load_encoder
from engine.models.factories import sha256_of
from engine.models.task_trial import is_as_trained
from engine.pool.manifest import read_shards
from engine.pool.shards import Shards

_OWN = ("round", "stage", "counts", "seed", "inputs", "files", "config", "code_version", "completed_at", "effort")
"""The fields of a manifest that are given or made when it is written; `effort` is what the earlier round cost."""

_MORE = (
    *("score", "select.acquisition", "select.budget"),
    *("handoff.question", "labels.classes", "labels.masks", "labels.void"),
)
"""Options that say which networks are asked for, how many clusters the pool is parted into, and what a label means,
beside those of training itself."""


AT_ONCE = 65_536
MOST_CHANGED = 0.1
"""Where no label is new, networks are used again while less than this share of the pool's bytes joined or left it since
they were trained: they score the new images as they score all those that they were not trained on."""


def fingerprint_of(shards: Shards) -> str:
    """SHA-256 of the pool that a training learns from: the names and versions of its shards. It is `fingerprint` of
    their list, of which few are in memory at a time."""
    digest, before = hashlib.sha256(b'{"shards": ['), ""
    for batch in shards.table.select(["shard", "version"]).to_batches(AT_ONCE):
        pairs = list(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        digest.update(f"{before}{json.dumps(pairs)[1:-1]}".encode())
        before = ", "
    digest.update(b"]}")
    return digest.hexdigest()


def reused(campaign: Campaign, inputs: dict[str, str], log: Log) -> TrainManifest | None:
    """Complete the train stage with the networks of the round before. Returns its manifest; None where these inputs,
    the options, a network of the user's or the version of the code are others, so that it is to be trained. A pool that
    changed little counts as the same: the manifest names the one that was learnt from.

    Raises ConfigError if the user's task learner cannot be used.
    """
    if not campaign.round:
        return None
    before = replace(campaign, round=campaign.round - 1)
    if not is_complete(before.stage("train")):
        return None
    made = read_manifest(before, "train", TrainManifest)
    learnt = made["inputs"]
    if {**learnt, "pool": ""} != {**inputs, "pool": ""} or _options_in(made["config"]) != _options_of(campaign.config):
        return None
    if made["code_version"] != importlib.metadata.version("vaal"):
        log("no label is new, but the networks are those of another version of vaal; so they are trained")
        return None
    if learnt != inputs and not _changed_little(campaign, made, log):
        return None
    files = {}
    try:
        if other := _other_network(campaign.config, made):
            log(f"no label is new, but {other} is another network than in round {before.round:03d}; so it is trained")
            return None
        for name, sha256 in made["files"].items():
            content = (before.stage("train") / name).read_verified(sha256, "train again")
            files[name] = (campaign.stage("train") / name).write_bytes(content)
    except InputError as error:
        log(f"{error}; so the networks are trained, although no label is new")
        return None
    log(
        f"no label is new since round {before.round:03d}: its networks are used again, and not trained again; to train "
        f"all the same: --set train.seed={campaign.config.train.seed + 1}"
    )
    details: dict[str, Any] = {name: value for name, value in made.items() if name not in _OWN}
    return write_manifest(
        campaign, "train", TrainManifest, inputs=learnt, counts=made["counts"], files=files,
        **{**details, "reused_round": made.get("reused_round", before.round)},
    )  # fmt: skip


def _changed_little(campaign: Campaign, made: TrainManifest, log: Log) -> bool:
    """Whether few shards joined the pool or left it since the networks were trained, and no other bytes came."""
    shards = read_shards(campaign.home)
    trained_in = made.get("reused_round", campaign.round - 1)
    before = shards.in_round(trained_in)
    if fingerprint_of(before) != made["inputs"].get("pool"):
        return False
    changed = shards.where(shards.are_in(trained_in) != shards.are_in(campaign.round))
    share = changed.num_bytes / before.num_bytes
    if share > MOST_CHANGED:
        why = f"shards of {share:.0%} of the pool's bytes joined or left it since the networks were trained"
        log(f"no label is new, but {why}, more than {MOST_CHANGED:.0%}; so they are trained")
    return share <= MOST_CHANGED


def _other_network(config: CampaignConfig, made: TrainManifest) -> str:
    """The option that names a network of the user's which is not the one of a train manifest any more, although its
    name is the same; else empty. Raises InputError if its weights are missing."""
    if config.task.model and not is_as_trained(config, made.get("task", {})):
        return f"task.model={config.task.model}"
    if before := made.get("embedding", {}).get("encoder_sha256"):
        encoder = config.encoder
        now = sha256_of(encoder.weights) if encoder.weights else load_encoder(encoder, "cpu").sha256
        return f"encoder.model={encoder.model}" if now != before else ""
    return ""


def _options_of(config: CampaignConfig) -> dict[str, Any]:
    return _options_in(config.model_dump())


def _options_in(config: Any) -> dict[str, Any]:
    """The options in a dumped configuration that decide what training makes, by key."""
    sections = {*stage_of("train").freezes, *_MORE}
    values = {key: config.get(section, {}) for key in fields() for section in [key.partition(".")[0]]}
    return {
        key: values[key].get(key.partition(".")[2])
        for key in filter(changes_results, fields())
        if {key, key.partition(".")[0]} & sections
    }
