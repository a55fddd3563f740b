"""How far scoring is, in the campaign's storage: for `vaal status` anywhere, and for a second run to know the first."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType

from typing_extensions import TypedDict

from engine.errors import InputError, StorageError, VaalError
from engine.storage.documents import read_document
from engine.storage.location import Location

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 3 * BEAT_SECONDS
"""A run that shows no sign of life for so long is dead."""


class State(TypedDict):
    """What a run says of how far it is: all that is committed, and the speed of this run."""

    shards: int
    total_shards: int
    items: int
    items_per_second: float
    seconds_left: int | None
    errors: dict[str, int]


class Beat(State):
    """A sign of life of a run, and where it runs."""

    host: str
    pid: int
    run: str
    started_at: str
    at: str
    is_running: bool


class Heartbeat:
    """Writes the state into a file every `BEAT_SECONDS` while it is entered, and that the run ended when it is left."""

    def __init__(self, file: Location, state: Callable[[], State]) -> None:
        self._file, self._state = file, state
        self._run = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "run": secrets.token_hex(8),
            "started_at": _now(),
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._write(is_running=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        # Whatever stopped the run is reported, and not that this failed too.
        with suppress(StorageError):
            self._write(is_running=False)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with suppress(StorageError):
                self._write(is_running=True)

    def _write(self, *, is_running: bool) -> None:
        self._file.write_json({**self._run, "at": _now(), "is_running": is_running, **self._state()})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_heartbeat(file: Location) -> Beat | None:
    """The last sign of life of a run; None where there never was one.

    Raises:
        InputError: the file is damaged.
        ConfigError: a field is missing, or is not of its type.
    """
    try:
        return read_document(file, Beat) if file.exists() else None
    except InputError:
        if file.exists():
            raise
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


def is_living(beat: Beat) -> bool:
    """Whether a run lives, as far as its last sign of life can tell; the clocks of the machines are believed."""
    age = datetime.now(UTC) - datetime.fromisoformat(beat["at"])
    return beat["is_running"] and age.total_seconds() < PATIENCE_SECONDS and not _is_known_dead(beat)


def _is_known_dead(beat: Beat) -> bool:
    if beat["host"] != socket.gethostname():
        return False
    try:
        os.kill(beat["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
