"""How far scoring is: counted as chunks and shards come in."""

import time
from collections import Counter

import pyarrow as pa

from engine.campaign.heartbeat import State
from engine.campaign.scored_shards import errors_in
from engine.campaign.stages import Effort
from engine.cluster.gauges import Measure
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import counts_of

FIRST_SECONDS = 1.0
"""Until then, no speed is reported."""


class Tally:
    """Counts chunks and shards. One thread writes, others may read.

    Bytes and speed are those of this run, because items are counted only when they are read. Shards, items and
    quarantined items of the state include everything that is committed.
    """

    def __init__(self, total_bytes: int, total_shards: int, committed: pa.Table) -> None:
        """`committed` are the records of what is committed: RECORDS_SCHEMA."""
        self._total_bytes, self._total_shards = total_bytes, total_shards
        self._shards = len(committed)
        self._done_bytes = self._items = 0
        self._first: tuple[float, int, int] | None = None
        self._listed = counts_of(committed)["listed"]
        self._errors = Counter(errors_in(committed))

    def add_chunk(self, read_bytes: int, num_items: int) -> None:
        self._done_bytes += read_bytes
        self._items += num_items
        if self._first is None:
            # Speed counts from the first chunk, so that it excludes the seconds in which Ray starts.
            self._first = time.monotonic(), self._items, self._done_bytes

    def add_shard(self, record: ShardRecord) -> None:
        self._shards += 1
        self._listed += record.listed
        self._errors.update(record.errors)

    def state(self) -> State:
        """What `vaal status` shows."""
        rate, left = self._speed()
        return {
            "shards": self._shards,
            "total_shards": self._total_shards,
            "items": self._listed,
            "items_per_second": round(rate, 1),
            "seconds_left": None if left is None else round(left),
            "errors": dict(sorted(self._errors.items())),
        }

    def measured(self, measure: Measure) -> State:
        """The state, whose numbers are also given to `measure`."""
        state = self.state()
        measure("vaal_shards", state["total_shards"])
        measure("vaal_shards_committed", state["shards"])
        measure("vaal_items_scored", state["items"] - sum(state["errors"].values()))
        measure("vaal_items_per_second", state["items_per_second"])
        for error, count in state["errors"].items():
            measure("vaal_items_quarantined", count, error=error)
        return state

    def effort(self, seconds: float, workers: int) -> Effort:
        """What this run cost, which took so long with so many workers."""
        return {"seconds": round(seconds, 3), "done": self._items, "workers": workers}

    def in_words(self) -> tuple[float, str]:
        """The share of this run's bytes that is done, 0 to 1, and a few words for a person."""
        rate = self._speed()[0]
        words = f"{self._items:,} items read, {f'{rate:,.0f} items/s, ' if rate else ''}"
        words += f"{self._shards:,} of {self._total_shards:,} shards written"
        num_bad = sum(self._errors.values())
        return self._done_bytes / max(1, self._total_bytes), words + (f", {num_bad:,} bad" if num_bad else "")

    def _speed(self) -> tuple[float, float | None]:
        """Items a second, 0 while too little is known; and the seconds left, estimated from bytes, or None."""
        begin, items, done_bytes = self._first or (time.monotonic(), 0, 0)
        seconds, read_bytes = time.monotonic() - begin, self._done_bytes - done_bytes
        # Chunks that waited for the first one come at once.
        if seconds < FIRST_SECONDS or not read_bytes:
            return 0.0, None
        return (self._items - items) / seconds, seconds * (self._total_bytes - self._done_bytes) / read_bytes
