"""A hung read or decode cannot be interrupted from Python: the process that hangs is ended, and another one goes on."""

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

EXIT_STATUS = 75
"""Of a process that the watchdog ended (EX_TEMPFAIL)."""


class Watchdog:
    """Calls `on_stall` and ends this process when what was started is not stopped within `seconds`.

    It watches while it is entered. `on_stall` gets what stalled, from a thread of the watchdog's own.
    """

    def __init__(self, seconds: float, on_stall: Callable[[str], None]) -> None:
        self._seconds, self._on_stall = seconds, on_stall
        self._watched: tuple[float, str] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self, what: str) -> None:
        """`what` begins now, and whatever began before is over."""
        self._watched = time.monotonic(), what

    def stop(self) -> None:
        self._watched = None

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
    """What is known of a shard as a process begins to read it."""

    begun: int
    """How often it was begun before, and not finished."""
    stalls: int
    """How often reading it stalled."""
    items: frozenset[str]
    """Keys of the items whose decoding stalled."""


class Attempts:
    """What a process that dies cannot hand to its successor: which shards were begun, and what of them stalled."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._stalls: Counter[str] = Counter()
        self._items: dict[str, set[str]] = defaultdict(set)

    def begin(self, shard: str) -> ShardHistory:
        history = ShardHistory(self._begun[shard], self._stalls[shard], frozenset(self._items.get(shard, ())))
        self._begun[shard] += 1
        return history

    def stalled(self, shard: str, key: str) -> None:
        """Decoding the item of this key took too long, or, where it is empty, reading did."""
        # It died of a known cause, which is counted apart.
        self._begun[shard] -= 1
        if key:
            self._items[shard].add(key)
        else:
            self._stalls[shard] += 1

    def done(self, shard: str) -> None:
        del self._begun[shard]
