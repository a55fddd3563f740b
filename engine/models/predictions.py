"""What the task learner of a round predicts of images, from the committed scores."""

from collections import defaultdict

from engine.campaign.folder import Campaign
from engine.campaign.labels import Identity
from engine.campaign.manifests import ScoresManifest, read_manifest
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


def known_of(query: list[bool], control: list[bool]) -> Known:
    """Shares of what is right in each arm, with Wilson's intervals, and their difference, control less query, with
    Newcombe's (Statistics in Medicine 17, 1998, method 10)."""
    of_query, of_control = (wilson(sum(right), len(right)) if right else None for right in (query, control))
    if of_query is None or of_control is None:
        return Known(of_query, of_control, None)
    value = of_control.value - of_query.value
    below = math.hypot(of_control.value - of_control.low, of_query.high - of_query.value)
    above = math.hypot(of_control.high - of_control.value, of_query.value - of_query.low)
    return Known(of_query, of_control, Share(value, value - below, value + above, len(query) + len(control)))


def wilson(hits: int, total: int) -> Share:
    """hits / total with Wilson's score interval, exact at 0 and 1 hits too. `total` is at least 1."""
    share, z2 = hits / total, Z_95**2 / total
    middle, half = share + z2 / 2, Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total))
    return Share(share, max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2)), total)


def class_counts(gain: Gain) -> list[tuple[str, int, int]]:
    """The most frequent labels of a round, MOST_CLASSES of them: each with how many the query and the control have."""
    query, control = gain.labels[QUERY], gain.labels[CONTROL]
    names = sorted(query | control, key=lambda name: (-query[name] - control[name], name))
    return [(name, query[name], control[name]) for name in names[:MOST_CLASSES]]
