"""The stages of training and scoring as files, of a round whose scores are in memory.

Shape suffixes: N items of the pool, Z latent units.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.manifests import TrainManifest, write_manifest
from engine.campaign.scored_shards import complete_scores, file_name
from engine.models.centring import save_centres
from engine.models.diagnosis import manifest_entries
from engine.models.weights import save_weights
from engine.pool.identity import content_hash
from engine.pool.items import read_shard
from engine.pool.manifest import read_shards
from engine.scoring.drafts import Draft
from engine.simulation.vector_round import Trained
from engine.tables.scores import ITEM_FIELDS, pack
from engine.tables.shard_records import table_of
from engine.training.metrics import METRICS_SCHEMA
from vaal.duplicates.perceptual_hash import HASH_BYTES


class Members(NamedTuple):
    """The items of the pool in their shards, sorted by shard: names, offset and size in bytes (N,) int64, hashes."""

    names: list[tuple[str, str]]
    offset_N: NDArray[np.int64]
    size_bytes_N: NDArray[np.int64]
    hashes: list[str]


def members_of(campaign: Campaign) -> Members:
    """The items in the campaign's shards, which are read whole."""
    items = [
        (shard.shard, item) for shard in read_shards(campaign.home) for item in read_shard(shard, campaign.config.image)
    ]
    return Members(
        [(shard, item.key) for shard, item in items],
        np.array([item.offset for _, item in items], np.int64),
        np.array([item.size_bytes for _, item in items], np.int64),
        [content_hash(item.data) for _, item in items],
    )


def write_stages(campaign: Campaign, trained: Trained, members: Members) -> None:
    """Complete the stages of training and scoring of the campaign's round, as the commands leave them."""
    folder = campaign.stage("train")
    files = save_weights(folder, trained.networks.files())
    files["metrics.parquet"] = (folder / "metrics.parquet").write_table(METRICS_SCHEMA.empty_table())
    if trained.centres is not None:
        files |= save_centres(folder, trained.centres)
    write_manifest(
        campaign, "train", TrainManifest,
        inputs={}, files=files, device="cpu", losses={}, fold_round=campaign.round,
        **{"counts": {"steps": 0}, **manifest_entries(trained.diagnosis), **trained.details},
    )  # fmt: skip
    records, place, scores = [], 0, campaign.stage("scores")
    shards = read_shards(campaign.home)
    for name, group in itertools.groupby(shard for shard, _ in members.names):
        part = slice(place, place := place + len(list(group)))
        draft, table = Draft(name), _rows(trained, members, part)
        draft.add({"chunk": 0, "listed": len(table), "failure": "", "scored": pack(table), "bad": None})
        records.append(draft.commit(scores, campaign.stage("quarantine"), file_name(shards.named(name), fingerprint())))
    complete_scores(campaign, table_of(records), {}, {"device": "cpu"})


def _rows(trained: Trained, members: Members, part: slice) -> pa.Table:
    latent_NZ = trained.scores.latent_NZ[part]
    size = part.stop - part.start
    columns: dict[str, Any] = {
        "key": [key for _, key in members.names[part]],
        "offset": members.offset_N[part],
        "size_bytes": members.size_bytes_N[part],
        "content_hash": members.hashes[part],
        "perceptual_hash": pa.nulls(size, pa.binary(HASH_BYTES)),
    }
    table = pa.table(columns, schema=pa.schema(ITEM_FIELDS))
    for name, value_N in trained.scores.columns.items():
        table = table.append_column(name, pa.array(value_N[part]))
    flat = pa.array(latent_NZ.reshape(-1))
    return table.append_column("latent", pa.FixedSizeListArray.from_arrays(flat, latent_NZ.shape[1]))
