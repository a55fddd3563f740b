"""What scoring still has to do, from storage alone: which shards are committed, changed since, or left.

The name of a scores file is a hash of its shard's version, the weights, the settings and the code. A file with the
expected name therefore has the right content, and new weights never mix with old scores. Ledger files hold the counts
and checksums of committed files, because reading a million scores files to count them would take hours.
"""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import NamedTuple

from engine.campaign.changes import file_name, log_some, refresh
from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.scored_shards import LEDGER
from engine.campaign.stages import Log
from engine.pool.manifest import in_round
from engine.pool.shard import Shard
from engine.scoring.carrying import carry_over
from engine.scoring.drafts import recall
from engine.storage.location import Location
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import READ_THREADS, read_ledger, table_of

FLUSH_SECONDS = 20.0
"""Seconds between ledger files. After a kill, later commits are counted from their scores files."""


class ScoringPlan(NamedTuple):
    """All shards as they are now, the file of each, the records of the committed ones, and the others."""

    shards: list[Shard]
    files: dict[str, str]
    committed: dict[str, ShardRecord]
    todo: list[Shard]


def make_plan(campaign: Campaign, inputs: dict[str, str], log: Log) -> ScoringPlan:
    """ScoringPlan scoring with these `inputs`. Files that do not belong to the plan are removed, and that is logged.

    A shard that failed in an earlier run is done again. The largest shards come first, so that all workers end at about
    the same time.

    Raises InputError if the pool or the campaign's storage cannot be listed.
    """
    key = fingerprint(**inputs)
    shards = in_round(refresh(campaign, log, key), campaign.round)
    files = {shard.shard: file_name(shard, key) for shard in shards}
    with closing(Ledger(campaign.stage("ledger"))) as ledger:
        for record in carry_over(campaign, inputs, files, log):
            ledger.add(record)
    committed = _read_committed(campaign, files, log)
    todo = [shard for shard in shards if shard.shard not in committed]
    if len(todo) < len(shards):
        log(f"{len(shards) - len(todo):,} of {len(shards):,} shards are committed already")
    return ScoringPlan(shards, files, committed, sorted(todo, key=lambda shard: -shard.size_bytes))


def _read_committed(campaign: Campaign, files: dict[str, str], log: Log) -> dict[str, ShardRecord]:
    """The records of the files that stay, by shard. All other files are removed."""
    scores, quarantine = campaign.stage("scores"), campaign.stage("quarantine")
    present, expected = _tables(scores), set(files.values())
    committed = {
        record.shard: record
        for record in read_ledger(campaign.stage(LEDGER))
        if files.get(record.shard) == record.file and present.get(record.file) == record.size_bytes
    }
    unknown = sorted((present.keys() & expected) - {record.file for record in committed.values()})
    with ThreadPoolExecutor(READ_THREADS) as threads:
        for name, record in zip(unknown, threads.map(partial(recall, scores), unknown), strict=True):
            if record:
                committed[record.shard] = record
            else:
                log(f"removing {scores / name}: it is damaged")
    # A shard that failed is tried again. Where that succeeds, no trace of the failure is left.
    committed = {shard: record for shard, record in committed.items() if not record.failure}
    kept = {record.file for record in committed.values()}
    stale = "it was made of other bytes, weights, settings or code"
    log_some(log, [f"removing {scores / name}: {stale}" for name in present if name not in expected])
    # A quarantine file without a scores file was left by a run that was killed.
    for folder, names in ((scores, present), (quarantine, _tables(quarantine))):
        for name in names.keys() - kept:
            (folder / name).delete()
    return committed


def _tables(folder: Location) -> dict[str, int]:
    """Size in bytes of each Parquet file in a folder, sorted by name."""
    return {name: size for name, size in folder.children().items() if name.endswith(".parquet")}


class Ledger:
    """Writes the records of committed shards every `FLUSH_SECONDS`. Closing it writes those that are left."""

    def __init__(self, folder: Location) -> None:
        self._folder, self._records = folder, list[ShardRecord]()
        self._flushed_at = time.monotonic()

    def add(self, record: ShardRecord) -> None:
        self._records.append(record)
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self.close()

    def close(self) -> None:
        """Write the records added since the last file. The ledger stays usable."""
        if self._records:
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
            (self._folder / name).write_table(table_of(self._records))
        self._records, self._flushed_at = [], time.monotonic()
