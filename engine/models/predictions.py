"""What the task learner of a round predicts of images, from its committed selection or scores."""

from collections import defaultdict

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.labels import Identity, identities
from engine.campaign.manifests import ScoresManifest, read_committed, read_manifest
from engine.tables.score_reader import columns_of, read_scores
from engine.tables.scores import records_of

NO_COLUMN = "its scores have no predictions (score.acquisition without margin)"
GONE = "its scores are not in the campaign any more"


def predictions(campaign: Campaign, items: list[Identity]) -> tuple[dict[Identity, int], str]:
    """The number of the class that was predicted for each of these items that was scored; or nothing, and why."""
    folder = campaign.stage("scores")
    records = {
        record.shard: record for record in records_of(read_manifest(campaign, "scores", ScoresManifest)["shards"])
    }
    by_shard: dict[str, set[str]] = defaultdict(set)
    for shard, key in items:
        by_shard[shard].add(key)
    found: dict[Identity, int] = {}
    for shard in sorted(by_shard.keys() & records.keys()):
        record = records[shard]
        if not (folder / record.file).exists():
            return {}, GONE
        if "predicted" not in columns_of(folder, record):
            return {}, NO_COLUMN
        table = read_scores(folder, record, ["key", "predicted"])
        pairs = zip(table["key"].to_pylist(), table["predicted"].to_pylist(), strict=True)
        found |= {(shard, key): number for key, number in pairs if key in by_shard[shard]}
    return found, ""


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
