"""How far scoring is, in the campaign's storage: for `vaal status` anywhere, and for a second run to know the first."""

import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple

from engine.errors import InputError, StorageError, VaalError
from engine.scoring.drafts import Committed, count_errors
from engine.storage.location import Location

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 3 * BEAT_SECONDS
"""A run that shows no sign of life for so long is dead."""


class Progress(NamedTuple):
    """How far scoring is. Bytes and items are those of this run, because items are not counted before they are read;
    shards and quarantined items are all that are committed."""

    done_bytes: int
    total_bytes: int
    items: int
    items_per_second: float
    seconds_left: float | None
    shards: int
    total_shards: int
    quarantined: int


class Tally:
    """Counts what comes in. One thread writes, others may read."""

    def __init__(self, total_bytes: int, total_shards: int, committed: dict[str, Committed]) -> None:
        self._total_bytes, self._total_shards = total_bytes, total_shards
        self._shards = len(committed)
        self._done_bytes = self._items = 0
        self._first: tuple[float, int, int] | None = None
        self._listed = sum(ledger.listed for ledger in committed.values())
        self._errors = count_errors(committed.values())

    def add_chunk(self, read_bytes: int, num_items: int) -> None:
        self._done_bytes += read_bytes
        self._items += num_items
        if self._first is None:
            # Counted from the first chunk, so that the seconds in which Ray starts do not hide the speed.
            self._first = time.monotonic(), self._items, self._done_bytes

    def add_shard(self, ledger: Committed) -> None:
        self._shards += 1
        self._listed += ledger.listed
        self._errors.update(ledger.errors)

    def progress(self) -> Progress:
        first_at, first_items, first_bytes = self._first or (0.0, 0, 0)
        seconds = time.monotonic() - first_at
        left = None
        if self._first and self._done_bytes > first_bytes:
            left = seconds * (self._total_bytes - self._done_bytes) / (self._done_bytes - first_bytes)
        return Progress(
            self._done_bytes, self._total_bytes, self._items,
            (self._items - first_items) / seconds if self._first and seconds else 0.0,
            left, self._shards, self._total_shards, sum(self._errors.values()),
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What `vaal status` shows: all that is committed, and the speed of this run."""
        progress = self.progress()
        return {
            "shards": self._shards,
            "total_shards": self._total_shards,
            "items": self._listed,
            "items_per_second": round(progress.items_per_second, 1),
            "seconds_left": None if progress.seconds_left is None else round(progress.seconds_left),
            "errors": dict(sorted(self._errors.items())),
        }


class Heartbeat:
    """Writes the tally into a file every `BEAT_SECONDS` while it is entered, and that the run ended when it is left."""

    def __init__(self, file: Location, tally: Tally) -> None:
        self._file, self._tally = file, tally
        self._run = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "run": secrets.token_hex(8),
            "started_at": _now(),
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._write(is_running=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        # Whatever stopped the run is what is told, and not that this failed too.
        with suppress(StorageError):
            self._write(is_running=False)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with suppress(StorageError):
                self._write(is_running=True)

    def _write(self, *, is_running: bool) -> None:
        state = {**self._run, "at": _now(), "is_running": is_running, **self._tally.state()}
        self._file.write_json(state)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_heartbeat(file: Location) -> dict[str, Any] | None:
    """The last sign of life of a run; None where there never was one."""
    if not file.exists():
        return None
    try:
        return file.read_json()
    except (InputError, ValueError):
        # Removed as it was about to be read: the run has just ended.
        return None


def require_alone(file: Location) -> None:
    """Return when no other run lives, waiting for a sign of life where that is not certain.

    Raises:
        VaalError: another run lives.
    """
    before = read_heartbeat(file)
    if before is None or not before["is_running"]:
        return
    if _is_known_dead(before):
        return
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 5)
        now = read_heartbeat(file)
        if now is None or not now["is_running"]:
            return
        if now != before:
            raise VaalError(
                f"{file}: process {now['pid']} on {now['host']} is scoring this campaign, {now['shards']:,} of "
                f"{now['total_shards']:,} shards are done; wait for it, or stop it and run again"
            )


def is_living(beat: dict[str, Any]) -> bool:
    """Whether a run lives, as far as its last sign of life can tell; the clocks of the machines are believed."""
    age = datetime.now(UTC) - datetime.fromisoformat(beat["at"])
    return beat["is_running"] and age.total_seconds() < PATIENCE_SECONDS and not _is_known_dead(beat)


def _is_known_dead(beat: dict[str, Any]) -> bool:
    if beat["host"] != socket.gethostname():
        return False
    try:
        os.kill(beat["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
