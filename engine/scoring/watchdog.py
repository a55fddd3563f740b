"""Python cannot interrupt a read or decode that hangs: its process is ended, and another process continues."""

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import NamedTuple

EXIT_STATUS = 75
"""The exit status of a process that the watchdog ended (EX_TEMPFAIL)."""


class Watchdog:
    """Calls `on_stall` and ends this process when something takes longer than `seconds` between `start` and `stop`.

    It watches while it is entered. `on_stall` is called with what stalled, in a thread of the watchdog.
    """

    def __init__(self, seconds: float, on_stall: Callable[[str], None]) -> None:
        self._seconds, self._on_stall = seconds, on_stall
        self._watched: tuple[float, str] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self, what: str) -> None:
        """`what` begins now; what began before has ended."""
        self._watched = time.monotonic(), what

    def stop(self) -> None:
        self._watched = None

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._seconds / 4)):
            watched = self._watched
            if watched is not None and time.monotonic() - watched[0] > self._seconds:
                try:
                    self._on_stall(watched[1])
                finally:
                    os._exit(EXIT_STATUS)


class ShardHistory(NamedTuple):
    """Earlier attempts at a shard: how many ended without a result or a stall, how often reading stalled, and the keys
    of the items whose decoding stalled."""

    begun: int
    stalls: int
    items: frozenset[str]


class Attempts:
    """Which shards were begun, and what stalled in them: a process that dies cannot pass this on itself."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._stalls: Counter[str] = Counter()
        self._items: dict[str, set[str]] = defaultdict(set)

    def begin(self, shard: str) -> ShardHistory:
        history = ShardHistory(self._begun[shard], self._stalls[shard], frozenset(self._items.get(shard, ())))
        self._begun[shard] += 1
        return history

    def stalled(self, shard: str, key: str) -> None:
        """Decoding the item with this key took too long; an empty key means that reading did."""
        # The cause of this death is known, and is counted separately.
        self._begun[shard] -= 1
        if key:
            self._items[shard].add(key)
        else:
            self._stalls[shard] += 1

    def done(self, shard: str) -> None:
        del self._begun[shard]
