"""The selection: exactly the b lowest of the committed scores, a pure function of scores, labels and configuration."""

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.campaign import Campaign, is_complete, read_manifest, round_home, write_manifest
from engine.errors import ConfigError, InputError
from engine.identity import item_id_of
from engine.labels import labelled_items, labels_fingerprints
from engine.storage import Location
from vaal.ranking import Scored, top_b

SELECTION_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("logit", pa.float32(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("cluster", pa.int32()),
    ]
)
CANDIDATE_COLUMNS = ["shard", "key", "offset", "size_bytes", "logit"]


def select(campaign: Campaign) -> dict[str, Any]:
    """Pick the round's images and complete the selection stage. Returns its manifest.

    Candidates are the scored items that have no label and were not picked in an earlier round.

    Raises:
        InputError: scoring is not complete, or a scores file is not the committed one.
        ConfigError: fewer candidates than the budget.
    """
    folder = campaign.stage("selection")
    if is_complete(folder):
        return read_manifest(folder, "select")
    scores = read_manifest(campaign.stage("scores"), "score")
    budget = campaign.config.select.budget
    picked_before = picked_items(campaign.home, before=campaign.round)
    excluded: dict[str, set[str]] = defaultdict(set)
    for shard, key in labelled_items(campaign.home) | set(
        zip(picked_before["shard"].to_pylist(), picked_before["key"].to_pylist(), strict=True)
    ):
        excluded[shard].add(key)

    best = pa.schema(_candidate_fields()).empty_table()
    num_candidates = 0
    for entry in scores["shards"]:
        table = read_scores(campaign.stage("scores"), entry, CANDIDATE_COLUMNS)
        keep = [key not in excluded[entry["shard"]] for key in table["key"].to_pylist()]
        table = table.filter(pa.array(keep, pa.bool_()))
        num_candidates += len(table)
        best = pa.concat_tables([best, table])
        # Reducing at twice the budget makes the whole a linear pass in memory of the budget.
        if len(best) >= 2 * budget:
            best = _lowest(best, budget)
    if num_candidates < budget:
        raise ConfigError(
            f"select.budget={budget}: only {num_candidates} items are neither labelled, quarantined nor picked before; "
            f"lower it: --set select.budget={max(1, num_candidates)}"
        )
    best = _lowest(best, budget)
    sha256 = (folder / "selection.parquet").write_table(_selection(best, campaign.config.salt))
    return write_manifest(
        folder,
        campaign,
        inputs={
            "scores": hashlib.sha256((campaign.stage("scores") / "manifest.json").read_bytes()).hexdigest(),
            **labels_fingerprints(campaign.home),
        },
        counts={"candidates": num_candidates, "picked": len(best), "picked_before": len(picked_before)},
        files={"selection.parquet": sha256},
        details={"highest_picked_logit": best["logit"][-1].as_py()},
    )


def _candidate_fields() -> list[pa.Field]:
    return [SELECTION_SCHEMA.field(name) for name in CANDIDATE_COLUMNS]


def _lowest(table: pa.Table, b: int) -> pa.Table:
    names = [np.array(table[column].to_pylist(), dtype=np.str_) for column in ("shard", "key")]
    return table.take(pa.array(top_b(Scored(table["logit"].to_numpy(), *names), b)))


def _selection(best: pa.Table, salt: str) -> pa.Table:
    count = len(best)
    identities = zip(best["shard"].to_pylist(), best["key"].to_pylist(), strict=True)
    columns: dict[str, Any] = {name: best[name] for name in CANDIDATE_COLUMNS} | {
        "rank": pa.array(range(count), pa.int64()),
        "item_id": pa.array([item_id_of(shard, key, salt) for shard, key in identities], pa.string()),
        "arm": pa.array(["query"] * count, pa.string()),
        "reason": pa.array(["lowest labelled-logit"] * count, pa.string()),
        "cluster": pa.nulls(count, pa.int32()),
    }
    return pa.table([columns[name] for name in SELECTION_SCHEMA.names], schema=SELECTION_SCHEMA)


def read_scores(folder: Location, entry: dict[str, Any], columns: list[str]) -> pa.Table:
    """Columns of one committed scores file; `entry` is its row in the manifest.

    Raises:
        InputError: the file is missing or is not the one that was committed.
    """
    file = folder / entry["file"]
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise InputError(
            f"{file}: damaged since it was committed; delete it and {folder}/manifest.json, then score again"
        )
    return pq.read_table(pa.BufferReader(content), columns=columns).replace_schema_metadata()


def picked_items(home: Location, before: int) -> pa.Table:
    """Everything picked in the rounds before: item_id, shard, key, round, offset, size_bytes."""
    columns = ["item_id", "shard", "key", "offset", "size_bytes"]
    tables = [pa.schema([*(SELECTION_SCHEMA.field(name) for name in columns), ("round", pa.int32())]).empty_table()]
    for number in range(before):
        folder = round_home(home, number) / "selection"
        if is_complete(folder):
            table = (folder / "selection.parquet").read_table(columns)
            tables.append(table.append_column("round", pa.array([number] * len(table), pa.int32())))
    return pa.concat_tables(tables)
