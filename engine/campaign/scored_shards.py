"""What a round's scores manifest says of each shard. The rows are in the ledger beside it, which it names by hash.

Files of the ledger are written before the manifest, and all others are removed after it: a run that ends in between
leaves the stage incomplete, and the next one finds every shard counted.
"""

import hashlib
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.manifests import ScoresManifest, write_manifest
from engine.pool.shard import Shard
from engine.pool.shards import Shards
from engine.tables.score_reader import is_newest
from engine.tables.scores import ShardRecord, count_errors
from engine.tables.shard_records import (
    RECORDS_SCHEMA,
    content_hash_of,
    counts_of,
    read_records,
    records_in,
    table_of,
    write_records,
)

LEDGER = "ledger"
"""The folder of the ledger in a round."""
NAMED_AT_ONCE = 65_536


def shard_records(campaign: Campaign, manifest: ScoresManifest, columns: list[str] | None = None) -> pa.Table:
    """These columns of RECORDS_SCHEMA, by default all, of the round's scores: a row a shard, sorted by shard.

    Raises InputError, which names the file, where the ledger is not the one that was committed.
    """
    if "ledger" not in manifest:
        # An earlier version wrote the entries into the manifest.
        table = table_of(ShardRecord(**entry) for entry in manifest["shards"]).sort_by("shard")
        return table.select(columns or RECORDS_SCHEMA.names)
    return read_records(campaign.stage(LEDGER), manifest["ledger"], _advice(campaign), columns)


def _advice(campaign: Campaign) -> str:
    folder = campaign.stage("scores")
    if not is_newest(folder):
        return "its round is over: restore it from a copy"
    return f"restore it from a copy, or delete it and {folder}/manifest.json, then run: vaal score {campaign.home}"


def complete_scores(
    campaign: Campaign, records: pa.Table, inputs: dict[str, str], cost: dict[str, Any]
) -> ScoresManifest:
    """Complete the scores stage with these records, RECORDS_SCHEMA. Returns its manifest."""
    table = records.sort_by("shard")
    counts, folder = counts_of(table), campaign.stage(LEDGER)
    if not counts["unused_files"]:
        del counts["unused_files"], counts["unused_bytes"]
    manifest = write_manifest(
        campaign,
        "scores",
        ScoresManifest,
        inputs=inputs,
        counts=counts,
        files={},
        **cost,
        errors=errors_in(table),
        ledger=write_records(folder, table),
        content=content_hash_of(table),
    )
    for name in folder.children().keys() - manifest["ledger"].keys():
        (folder / name).delete()
    return manifest


def errors_in(table: pa.Table) -> dict[str, int]:
    """Quarantined items of all these shards by "stage/error", sorted."""
    return dict(sorted(count_errors(records_in(damaged_in(table))).items()))


def damaged_in(table: pa.Table) -> pa.Table:
    """The rows of the shards with a quarantined item."""
    return table.filter(pc.greater(table["quarantined"], 0))


def outdated(campaign: Campaign, shards: Shards, manifest: ScoresManifest) -> set[str]:
    """The names of the shards whose present bytes the scores of the campaign's round do not cover."""
    records, names = shard_records(campaign, manifest, ["shard", "file"]), shards.names
    made = records["file"].take(pc.index_in(names, value_set=records["shard"]))
    is_it = pc.equal(made, file_names(shards, fingerprint(**manifest["inputs"])))
    return set(names.filter(pc.invert(pc.fill_null(is_it, False))).to_pylist())


def file_names(shards: Shards, inputs_key: str) -> pa.ChunkedArray:
    """`file_name` of each."""
    batches = shards.table.select(["shard", "version"]).to_batches(NAMED_AT_ONCE)
    pairs = (zip(*(column.to_pylist() for column in batch.columns), strict=True) for batch in batches)
    return pa.chunked_array(
        [[_file_name(shard, version, inputs_key) for shard, version in part] for part in pairs], pa.string()
    )


def file_name(shard: Shard, inputs_key: str) -> str:
    """The name of a shard's files: a readable part of the shard's name, and a hash of everything that decides its
    scores."""
    return _file_name(shard.shard, shard.version, inputs_key)


def _file_name(shard: str, version: str, inputs_key: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", shard.removesuffix(".tar"))[-40:].strip("-")
    identity = "\0".join((shard, version, inputs_key))
    return f"{readable}-{hashlib.blake2b(identity.encode(), digest_size=10).hexdigest()}.parquet"
