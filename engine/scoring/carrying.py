"""Scores of earlier rounds whose networks are the same: a shard's file is taken over, and the shard is not read again.

The name of a scores file is a hash of all that decides it, so that a file of an earlier round with the name that is
expected now holds the scores that would be made. On a disk it is linked, on an object store copied by the store.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from engine.campaign.decisions import forgotten
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import fingerprint
from engine.campaign.manifests import ScoresManifest, TrainManifest, read_manifest
from engine.campaign.scored_shards import shard_records
from engine.campaign.stages import Log
from engine.config.texts import plural
from engine.storage.placing import duplicate
from engine.tables.scores import BY_PERSON, FORGOTTEN, ShardRecord
from engine.tables.shard_records import records_in

THREADS = 16


def carry_over(campaign: Campaign, inputs: dict[str, str], files: dict[str, str], log: Log) -> Iterator[ShardRecord]:
    """Take over the scores of shards that an earlier round committed, by the same networks, settings and code. Yields
    their records, each when its files are there.

    A shard with an image that is to be forgotten since is scored again without it.

    Args:
        inputs: those of the scores that are being made.
        files: the names of the files that scoring would make, by shard.
    """
    there = campaign.stage("scores").children()
    wanted = {shard: name for shard, name in files.items() if name not in there}
    for number in range(campaign.round - 1, -1, -1):
        before = replace(campaign, round=number)
        if wanted and is_complete(before.stage("scores")) and _is_alike(campaign, before, inputs):
            manifest = read_manifest(before, "scores", ScoresManifest)
            records = [one for one in records_in(shard_records(before, manifest)) if wanted.get(one.shard) == one.file]
            whole = _whole(campaign, before, records)
            if whole:
                log(f"{plural(len(whole), 'shard')} keep the scores of round {number:03d}: the networks are the same")
            with ThreadPoolExecutor(THREADS) as threads:
                yield from threads.map(partial(_take_over, campaign, before), whole)
            for record in whole:
                del wanted[record.shard]


def _is_alike(campaign: Campaign, before: Campaign, inputs: dict[str, str]) -> bool:
    """Whether a round's scores are by the same networks, and each image by those that did not see it."""
    made = read_manifest(before, "scores", ScoresManifest)["inputs"]
    if fingerprint(**made) != fingerprint(**inputs) or not is_complete(before.stage("train")):
        return False
    rounds = [read_manifest(one, "train", TrainManifest).get("fold_round") for one in (campaign, before)]
    return rounds[0] == rounds[1]


def _whole(campaign: Campaign, before: Campaign, records: list[ShardRecord]) -> list[ShardRecord]:
    """Those of an earlier round's records whose scores can be used again."""
    sizes = before.stage("scores").children()
    gone = Counter(shard for shard, _ in forgotten(campaign.home))
    name = f"{BY_PERSON}/{FORGOTTEN}"
    return [
        one
        for one in records
        if not one.failure and sizes.get(one.file) == one.size_bytes and one.errors.get(name, 0) == gone[one.shard]
    ]


def _take_over(campaign: Campaign, before: Campaign, record: ShardRecord) -> ShardRecord:
    # The scores last: a shard is committed from then on.
    for name in ("quarantine", "scores") if record.quarantined else ("scores",):
        duplicate(before.stage(name) / record.file, campaign.stage(name) / record.file)
    return record
