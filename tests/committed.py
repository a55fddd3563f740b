"""Committed scores files written by hand: any logits, any rows to a row group."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.campaign.folder import Campaign
from engine.campaign.manifests import ScoresManifest, read_manifest
from engine.campaign.scored_shards import shard_records
from engine.storage.location import Location
from engine.tables.score_reader import footer_sha256
from engine.tables.scores import ShardRecord, scores_schema
from engine.tables.shard_records import records_in
from vaal.duplicates.perceptual_hash import HASH_BYTES

NUM_LATENTS = 4
Item = tuple[str, str, float]
"""shard, key, logit."""


def commit(
    folder: Path,
    shard: str,
    rows: list[tuple[str, float]],
    group_rows: int = 3,
    *,
    has_checksums: bool = True,
    others: Mapping[str, Any] = {},
) -> ShardRecord:
    """Write a shard's scores file, as scoring would; without checksums as earlier versions did. `rows`: key and logit;
    `others` are columns in place of those that are made up. Returns its record.

    `vote_entropy` has two values, by the logit's sign, and `consensus_kl`, which decides between them, is minus it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = [key for key, _ in rows]
    schema = scores_schema(NUM_LATENTS, ["logit", "vote_entropy", "consensus_kl"])
    schema = schema.set(schema.get_field_index("logit"), pa.field("logit", pa.float32()))
    columns: dict[str, Any] = {
        "shard": [shard] * len(rows),
        "key": keys,
        "offset": np.arange(len(rows)) * 512,
        "size_bytes": np.arange(len(rows)) + 1,
        "content_hash": [hashlib.blake2b(f"{shard}/{key}".encode(), digest_size=16).hexdigest() for key in keys],
        "perceptual_hash": pa.nulls(len(rows), pa.binary(HASH_BYTES)),
        "logit": pa.array([logit for _, logit in rows], pa.float32()),
        "vote_entropy": pa.array([float((logit or 0) > 0) for _, logit in rows], pa.float32()),
        "consensus_kl": pa.array([-(logit or 0) for _, logit in rows], pa.float32()),
        "latent": [[float(n), 1.0, 0.0, 0.0] for n in range(len(rows))],
        **others,
    }
    sink = pa.BufferOutputStream()
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    pq.write_table(
        table, sink, row_group_size=group_rows, write_page_checksum=has_checksums,
        write_statistics=["key", "logit", "vote_entropy", "consensus_kl"],
    )  # fmt: skip
    content = sink.getvalue().to_pybytes()
    file = f"{hashlib.sha256(shard.encode()).hexdigest()[:16]}.parquet"
    (folder / file).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    record = ShardRecord(shard, file, len(rows), len(rows), 0, sha256, len(content))
    return record._replace(footer_sha256=footer_sha256(io.BytesIO(content), len(content)) if has_checksums else "")


def commit_all(folder: Path, items: list[Item], group_rows: int) -> list[ShardRecord]:
    """`commit` for every shard among the items."""
    by_shard: dict[str, list[tuple[str, float]]] = {}
    for shard, key, logit in items:
        by_shard.setdefault(shard, []).append((key, logit))
    return [commit(folder, shard, rows, group_rows) for shard, rows in by_shard.items()]


def location(folder: Path) -> Location:
    return Location.of(str(folder))


def folders_of(campaign: Campaign) -> tuple[Location, Location]:
    """Where a shard's scores and its quarantine are written."""
    return campaign.stage("scores"), campaign.stage("quarantine")


def records_of(campaign: Campaign) -> list[ShardRecord]:
    """The records of the round's complete scores."""
    return list(records_in(shard_records(campaign, read_manifest(campaign, "scores", ScoresManifest))))


def with_entries_inside(campaign: Campaign) -> dict[str, Any]:
    """Give the scores stage the manifest that an earlier version wrote: with an entry a shard, and no ledger. Returns
    it."""
    file, entries = campaign.stage("scores") / "manifest.json", [record.entry() for record in records_of(campaign)]
    manifest = json.loads(file.read_bytes())
    for name in manifest.pop("ledger"):
        (campaign.stage("ledger") / name).delete()
    del manifest["content"]
    file.write_json(manifest | {"shards": entries})
    return manifest | {"shards": entries}
