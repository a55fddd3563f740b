"""What the task learner of a round predicts of images, from its committed selection or scores."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.labels import Identity, identities
from engine.campaign.manifests import ScoresManifest, read_committed, read_manifest
from engine.campaign.scored_shards import shard_records
from engine.storage.location import Location
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


def predictions_of_picks(campaign: Campaign) -> dict[Identity, int]:
    """The number of the class that was predicted for each pick of the round, as its selection keeps it: none where an
    earlier version picked, there was no task learner, or the selection is gone."""
    folder = campaign.stage("selection")
    if not is_complete(folder):
        return {}
    picks = read_committed(folder, "selection.parquet")
    if "predicted" not in picks.column_names:
        return {}
    pairs = zip(identities(picks), picks["predicted"].to_pylist(), strict=True)
    return {item: number for item, number in pairs if number is not None}
