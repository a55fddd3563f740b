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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.changes import log_some, refresh
from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.scored_shards import LEDGER, file_name, file_names
from engine.campaign.stages import Log
from engine.pool.shards import Shards
from engine.scoring.carrying import carry_over
from engine.scoring.drafts import recall
from engine.storage.location import Location
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import READ_THREADS, RECORDS_SCHEMA, read_ledger, table_of

FLUSH_SECONDS = 20.0
"""Seconds between ledger files. After a kill, later commits are counted from their scores files."""


class ScoringPlan(NamedTuple):
    """All shards as they are now, sorted by name; the key in the names of their files; the records of the committed
    ones, RECORDS_SCHEMA; and the others, the largest first."""

    shards: Shards
    key: str
    committed: pa.Table
    todo: Shards

    def file_of(self, shard: str) -> str:
        """The name of a shard's files."""
        return file_name(self.shards.named(shard), self.key)


def make_plan(campaign: Campaign, inputs: dict[str, str], log: Log) -> ScoringPlan:
    """Plan scoring with these `inputs`. Files that do not belong to the plan are removed, and that is logged.

    A shard that failed in an earlier run is done again. The largest shards come first, so that all workers end at about
    the same time.

    Raises InputError if the pool or the campaign's storage cannot be listed.
    """
    key = fingerprint(**inputs)
    shards = refresh(campaign, log, key).in_round(campaign.round)
    files = pa.table({"shard": shards.names, "file": file_names(shards, key)})
    with closing(Ledger(campaign.stage("ledger"))) as ledger:
        for record in carry_over(campaign, inputs, files, log):
            ledger.add(record)
    committed = _read_committed(campaign, shards, files["file"], log)
    todo = shards.where(~shards.are_named(committed["shard"]))
    if len(todo) < len(shards):
        log(f"{len(shards) - len(todo):,} of {len(shards):,} shards are committed already")
    return ScoringPlan(shards, key, committed, todo.take(np.argsort(-todo.sizes, kind="stable")))


def _read_committed(campaign: Campaign, shards: Shards, files: pa.ChunkedArray, log: Log) -> pa.Table:
    """The records of the files that stay, of the shards that have these; RECORDS_SCHEMA. All other files are
    removed."""
    scores, quarantine = campaign.stage("scores"), campaign.stage("quarantine")
    present, sizes = _tables(scores)
    ledger = read_ledger(campaign.stage(LEDGER))
    size = sizes.take(pc.index_in(ledger["file"], value_set=present))
    # The name of a file says of which shard it is.
    is_own = pc.and_(pc.is_in(ledger["file"], value_set=files), pc.equal(size, ledger["size_bytes"]))
    ledger = ledger.filter(pc.fill_null(is_own, fill_value=False))
    row_N = np.full(len(shards), -1)
    # Of several records of a shard the last.
    np.maximum.at(row_N, shards.places_of(ledger["shard"]), np.arange(len(ledger)))
    committed = ledger.take(pa.array(row_N[row_N >= 0]))
    is_known = pc.is_in(present, value_set=committed["file"])
    is_expected = pc.is_in(present, value_set=files)
    unknown = present.filter(pc.and_not(is_expected, is_known)).to_pylist()
    with ThreadPoolExecutor(READ_THREADS) as threads:
        recalled = list(threads.map(partial(recall, scores), unknown))
    for name, record in zip(unknown, recalled, strict=True):
        if not record:
            log(f"removing {scores / name}: it is damaged")
    committed = pa.concat_tables([committed, table_of(filter(None, recalled))])
    # A shard that failed is tried again. Where that succeeds, no trace of the failure is left.
    committed = committed.filter(pc.equal(committed["failure"], ""))
    stale = "it was made of other bytes, weights, settings or code"
    others = present.filter(pc.invert(is_expected)).to_pylist()
    log_some(log, [f"removing {scores / name}: {stale}" for name in others])
    # A quarantine file without a scores file was left by a run that was killed.
    for folder, names in ((scores, present), (quarantine, _tables(quarantine)[0])):
        for name in names.filter(pc.invert(pc.is_in(names, value_set=committed["file"]))).to_pylist():
            (folder / name).delete()
    return committed


def _tables(folder: Location) -> tuple[pa.Array, pa.Array]:
    """Name and size in bytes of each Parquet file in a folder, sorted by name."""
    found = {name: size for name, size in folder.children().items() if name.endswith(".parquet")}
    return pa.array([*found], pa.string()), pa.array([*found.values()], pa.int64())


class Ledger:
    """Writes the records of committed shards every `FLUSH_SECONDS`. Closing it writes those that are left.

    `tables` are what it wrote, RECORDS_SCHEMA.
    """

    def __init__(self, folder: Location) -> None:
        self._folder, self._records, self.tables = folder, list[ShardRecord](), [RECORDS_SCHEMA.empty_table()]
        self._flushed_at = time.monotonic()

    def add(self, record: ShardRecord) -> None:
        self._records.append(record)
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self.close()

    def close(self) -> None:
        """Write the records added since the last file. The ledger stays usable."""
        if self._records:
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
            self.tables.append(table_of(self._records))
            (self._folder / name).write_table(self.tables[-1])
        self._records, self._flushed_at = [], time.monotonic()
