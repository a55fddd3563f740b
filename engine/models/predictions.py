"""What the task learner of a round predicts of images, from its committed selection or scores."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.labels import Identity
from engine.campaign.manifests import ScoresManifest, read_committed, read_manifest
from engine.campaign.scored_shards import shard_records
from engine.storage.location import Location
from engine.tables.item_keys import ItemKeys
from engine.tables.score_reader import columns_of, read_scores
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import READ_THREADS, records_in

NO_COLUMN = "its scores have no predictions (score.acquisition without margin)"
GONE = "its scores are not in the campaign any more"


def predictions(campaign: Campaign, items: list[Identity]) -> tuple[dict[Identity, int], str]:
    """The number of the class that was predicted for each of these items that was scored; or nothing, and why."""
    folder = campaign.stage("scores")
    by_shard: dict[str, set[str]] = defaultdict(set)
    for shard, key in items:
        by_shard[shard].add(key)
    records = shard_records(campaign, read_manifest(campaign, "scores", ScoresManifest))
    wanted = pa.array(sorted(by_shard), pa.string())
    found: dict[Identity, int] = {}
    with ThreadPoolExecutor(READ_THREADS) as threads:
        tables = threads.map(partial(_read, folder), records_in(records.filter(pc.is_in(records["shard"], wanted))))
        for record, table, why in tables:
            if table is None:
                return {}, why
            pairs = zip(table["key"].to_pylist(), table["predicted"].to_pylist(), strict=True)
            shard = record.shard
            found |= {(shard, key): number for key, number in pairs if key in by_shard[shard]}
    return found, ""


def _read(folder: Location, record: ShardRecord) -> tuple[ShardRecord, pa.Table | None, str]:
    """The predictions in a scores file; or None, and why."""
    if not (folder / record.file).exists():
        return record, None, GONE
    if "predicted" not in columns_of(folder, record):
        return record, None, NO_COLUMN
    return record, read_scores(folder, record, ["key", "predicted"]), ""


def predictions_of_picks(campaign: Campaign) -> tuple[ItemKeys, NDArray[np.int64]]:
    """The picks of the round of which its selection keeps what was predicted, N of them, and the number of the class
    (N,): none where an earlier version picked, there was no task learner, or the selection is gone."""
    folder, none = campaign.stage("selection"), (ItemKeys.of_items([]), np.empty(0, np.int64))
    if not is_complete(folder):
        return none
    try:
        picks = read_committed(folder, "selection.parquet", ["shard", "key", "predicted"])
    except pa.ArrowInvalid:
        return none
    picks = picks.filter(picks["predicted"].is_valid())
    return ItemKeys.of(picks), picks["predicted"].to_numpy().astype(np.int64)
