"""How far scoring is, in the campaign's storage: `vaal status` shows it anywhere, and a second run finds the first."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from engine.errors import InputError, StorageError, VaalError
from engine.storage.documents import Moment, read_document
from engine.storage.location import Location

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 3 * BEAT_SECONDS
"""A run without a sign of life for this long is dead."""


class State(TypedDict):
    """How far a run is: all that is committed, and the speed of this run."""

    shards: int
    total_shards: int
    items: int
    items_per_second: float
    seconds_left: Annotated[int, Field(ge=0, lt=10**10)] | None
    errors: dict[str, int]


class Beat(State):
    """A sign of life of a run, with where it runs."""

    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    run: str
    started_at: Moment
    at: Moment
    is_running: bool


@contextmanager
def beating(file: Location, state: Callable[[], State]) -> Iterator[None]:
    """Write the state into a file every `BEAT_SECONDS` while the body runs. At its end the file says so."""
    run = {"host": socket.gethostname(), "pid": os.getpid(), "run": secrets.token_hex(8), "started_at": _now()}
    over = threading.Event()

    def write(*, is_running: bool) -> None:
        file.write_json({**run, "at": _now(), "is_running": is_running, **state()})

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(StorageError):
                write(is_running=True)

    write(is_running=True)
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        # A failure here must not hide the error that stopped the run.
        with suppress(StorageError):
            write(is_running=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_heartbeat(file: Location) -> Beat | None:
    """The last sign of life of a run; None where there was none.

    Raises:
        InputError: the file is damaged.
        ConfigError: a field is missing, or is not of its type.
    """
    try:
        return read_document(file, Beat, "delete it")
    except InputError:
        if file.exists():
            raise
        return None


def require_alone(file: Location) -> None:
    """Return when no other run lives. Waits for a sign of life where that is not certain.

    Raises VaalError if another run lives.
    """
    before = now = read_heartbeat(file)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while now and now["is_running"] and not _is_known_dead(now):
        if now != before:
            raise VaalError(
                f"{file}: process {now['pid']} on {now['host']} is scoring this campaign, {now['shards']:,} of "
                f"{now['total_shards']:,} shards are done; wait for it, or stop it and run again"
            )
        if time.monotonic() >= deadline:
            return
        time.sleep(BEAT_SECONDS / 5)
        now = read_heartbeat(file)


def is_living(beat: Beat) -> bool:
    """Whether a run lives, by its last sign of life. The clocks of the machines are taken to agree."""
    age = datetime.now(UTC) - datetime.fromisoformat(beat["at"])
    return beat["is_running"] and age.total_seconds() < PATIENCE_SECONDS and not _is_known_dead(beat)


def _is_known_dead(beat: Beat) -> bool:
    if beat["host"] == socket.gethostname():
        try:
            os.kill(beat["pid"], 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
    return False
