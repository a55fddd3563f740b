"""What scoring has still to do, from storage alone: which shards are committed, changed since, or left.

A scores file is named by its shard's bytes, the weights, the settings and the code, so that a file which is there is
the right one, and new weights never mix with old scores. Ledger files keep the counts and checksums of what is
committed, for reading a million scores files to count them would take hours.
"""

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa

from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.stages import Log
from engine.errors import InputError
from engine.pool.manifest import look_up, read_shards, write_shards
from engine.pool.shard import Shard
from engine.scoring.drafts import recall
from engine.storage.location import Location
from engine.tables.scores import ShardRecord, to_table

FLUSH_SECONDS = 20.0
"""Ledger files are written this often; what was committed since is counted from its scores file after a kill."""
READ_THREADS = 16
MOST_LINES = 10
"""Lines of one kind that are logged."""
_STALE = "it was made of other bytes, weights, settings or code"
_NOT_READABLE = re.compile(r"[^A-Za-z0-9_-]+")
LEDGER_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("listed", pa.int64(), nullable=False),
        pa.field("scored", pa.int64(), nullable=False),
        pa.field("quarantined", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("failure", pa.string(), nullable=False),
        pa.field("errors", pa.string(), nullable=False),
    ]
)


class Plan(NamedTuple):
    """All shards as they are now, the file of each, the records of those that are committed, and those that are not."""

    shards: list[Shard]
    files: dict[str, str]
    committed: dict[str, ShardRecord]
    todo: list[Shard]


def make_plan(campaign: Campaign, inputs: dict[str, str], log: Log) -> Plan:
    """What is to be done with these `inputs`. Files that do not belong to it are removed and logged.

    A shard that failed in an earlier run is to be done again. The largest come first, for the sake of the end.

    Raises:
        InputError: the pool or the campaign's storage cannot be listed.
    """
    shards, _ = refresh(campaign, log)
    key = fingerprint(**inputs)
    files = {shard.shard: file_name(shard, key) for shard in shards}
    committed = _read_committed(campaign, files, log)
    todo = [shard for shard in shards if shard.shard not in committed]
    if len(todo) < len(shards):
        log(f"{len(shards) - len(todo):,} of {len(shards):,} shards are committed already")
    return Plan(shards, files, committed, sorted(todo, key=lambda shard: -shard.size_bytes))


def refresh(campaign: Campaign, log: Log) -> tuple[list[Shard], int]:
    """The pool's shards with the size and time they have now, and how many changed: they are logged, and kept so."""
    listed = read_shards(campaign.home)
    # One that is gone keeps its entry: reading it fails by name, and the others go on.
    shards = [now or before for before, now in zip(listed, look_up(listed), strict=True)]
    changed = [now for before, now in zip(listed, shards, strict=True) if now is not before]
    if changed:
        _log_some(log, [f"{shard.url}: its bytes changed since it was listed; it is scored again" for shard in changed])
        write_shards(campaign.home, shards)
    return shards, len(changed)


def file_name(shard: Shard, inputs_key: str) -> str:
    """The name of a shard's files: something of its own name, for a person, and a hash of all that its scores follow
    from."""
    readable = _NOT_READABLE.sub("-", shard.shard.removesuffix(".tar"))[-40:].strip("-")
    identity = "\0".join((shard.shard, str(shard.size_bytes), shard.etag_or_mtime, inputs_key))
    return f"{readable}-{hashlib.blake2b(identity.encode(), digest_size=10).hexdigest()}.parquet"


def _read_committed(campaign: Campaign, files: dict[str, str], log: Log) -> dict[str, ShardRecord]:
    """By shard, the records of the files that stay. All others are removed."""
    scores, quarantine = campaign.stage("scores"), campaign.stage("quarantine")
    present, expected = scores.children(), set(files.values())
    committed = {
        record.shard: record
        for record in read_ledger(campaign.stage("ledger"))
        if files.get(record.shard) == record.file and present.get(record.file) == record.size_bytes
    }
    unknown = (present.keys() & expected) - {record.file for record in committed.values()}
    with ThreadPoolExecutor(READ_THREADS) as threads:
        found = threads.map(lambda name: _recall(scores, name, log), unknown)
        committed |= {record.shard: record for record in found if record}
    # What failed is tried again, with no trace of the failure if it succeeds.
    committed = {shard: record for shard, record in committed.items() if not record.failure}
    kept = {record.file for record in committed.values()}
    _log_some(
        log, [f"removing {scores / name}: {_STALE}" for name in sorted(present.keys() - expected) if _is_table(name)]
    )
    # Of a shard that is not committed, a quarantine file is what a run that was killed left behind.
    for stage, names in ((scores, present), (quarantine, quarantine.children())):
        for name in names:
            if _is_table(name) and name not in kept:
                (stage / name).delete()
    return committed


def _is_table(name: str) -> bool:
    return name.endswith(".parquet")


def _recall(folder: Location, name: str, log: Log) -> ShardRecord | None:
    try:
        return recall(folder, name)
    except InputError:
        log(f"removing {folder / name}: it is damaged")
        return None


def _log_some(log: Log, lines: list[str]) -> None:
    for line in lines[:MOST_LINES]:
        log(line)
    if len(lines) > MOST_LINES:
        log(f"... and {len(lines) - MOST_LINES:,} more")


def read_ledger(folder: Location) -> Iterator[ShardRecord]:
    """The records of what was committed, older ones first. Raises ConfigError for a file with other columns."""
    names = sorted(name for name in folder.children() if name.endswith(".parquet"))
    with ThreadPoolExecutor(READ_THREADS) as threads:
        for table in threads.map(lambda name: (folder / name).read_typed_table(LEDGER_SCHEMA), names):
            for entry in table.to_pylist():
                yield ShardRecord(**{**entry, "errors": json.loads(entry["errors"])})


class Ledger:
    """Writes down what is committed, every `FLUSH_SECONDS`. Closing it writes what is left."""

    def __init__(self, folder: Location) -> None:
        self._folder, self._rows = folder, list[tuple[Any, ...]]()
        self._flushed_at = time.monotonic()

    def add(self, record: ShardRecord) -> None:
        self._rows.append((*record[:-1], json.dumps(record.errors)))
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self.close()

    def close(self) -> None:
        """Write what was added since the last time. The ledger stays usable."""
        if self._rows:
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
            (self._folder / name).write_table(to_table(self._rows, LEDGER_SCHEMA))
        self._rows, self._flushed_at = [], time.monotonic()
