"""Signs of life in the campaign's storage: a second run finds the first, and `vaal status` shows how far scoring is."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import Field
from typing_extensions import TypedDict

from engine.errors import BusyError, InputError, StorageError
from engine.storage.documents import Moment, read_document
from engine.storage.location import Location

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 3 * BEAT_SECONDS
"""A run without a sign of life for this long is dead."""


SETTLING_SECONDS = 0.05
"""Of two runs that start at the same moment, the one that wrote first sees the other after this time."""
LOCK_FILE = "running.json"


class Sign(TypedDict):
    """A sign of life of a run, with where it runs.

    `machine` tells apart the boots of a machine and its containers; a process number means something in one alone.
    """

    host: str
    machine: NotRequired[str]
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    run: str
    started_at: Moment
    at: Moment
    is_running: bool


class Lock(Sign):
    """The sign of life of the one run that writes into a campaign, and its command."""

    command: str


class State(TypedDict):
    """How far a run is: all that is committed, and the speed of this run."""

    shards: int
    total_shards: int
    items: int
    items_per_second: float
    seconds_left: Annotated[int, Field(ge=0, lt=10**10)] | None
    errors: dict[str, int]


class Beat(State, Sign):
    """A sign of life of scoring."""


SomeSign = TypeVar("SomeSign", bound=Sign)
_held: ContextVar[frozenset[str]] = ContextVar("campaigns that this run has to itself", default=frozenset())


@contextmanager
def alone(home: Location, command: str) -> Iterator[None]:
    """Have a campaign to oneself while the body runs. What the body calls may ask for it again.

    Raises BusyError if another run has it; a dead run never does.
    """
    if home.url in _held.get():
        yield
        return
    file, run = home / LOCK_FILE, _new_run()
    _require_free(file)

    def write() -> None:
        file.write_json({**run, "at": _now(), "is_running": True, "command": command})

    write()
    time.sleep(SETTLING_SECONDS)
    _require_mine(file, run)
    token = _held.set(_held.get() | {home.url})
    try:
        with _repeated(write):
            yield
    finally:
        _held.reset(token)
        # A failure here must not hide the error that stopped the run. What is left is seen to be dead.
        with suppress(OSError, StorageError, InputError):
            _require_mine(file, run)
            file.delete()


@contextmanager
def beating(file: Location, state: Callable[[], State]) -> Iterator[None]:
    """Write the state into a file every `BEAT_SECONDS` while the body runs. At its end the file says so."""
    run = _new_run()

    def write(*, is_running: bool = True) -> None:
        file.write_json({**run, "at": _now(), "is_running": is_running, **state()})

    write()
    try:
        with _repeated(write):
            yield
    finally:
        # A failure here must not hide the error that stopped the run.
        with suppress(StorageError):
            write(is_running=False)


@contextmanager
def _repeated(write: Callable[[], None]) -> Iterator[None]:
    """Write every `BEAT_SECONDS` while the body runs."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(StorageError):
                write()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _new_run() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "run": secrets.token_hex(8),
        "started_at": _now(),
    }


def _machine() -> str:
    """This boot of this machine, and the container; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_heartbeat(file: Location) -> Beat | None:
    """The last sign of life of scoring; None where there was none.

    Raises:
        InputError: the file is damaged.
        ConfigError: a field is missing, or is not of its type.
    """
    return _read(file, Beat)


def _read(file: Location, kind: type[SomeSign]) -> SomeSign | None:
    for is_again in (False, True):
        try:
            return read_document(file, kind, "delete it")
        except InputError:
            if not file.exists():
                return None
            # It may have appeared only after the look at it.
            if is_again:
                raise
    raise AssertionError


def _require_free(file: Location) -> None:
    """Return when no run has the lock. Waits for a sign of life where that is not certain. Raises BusyError."""
    before = now = _read(file, Lock)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while now and now["is_running"] and not _is_known_dead(now):
        if now != before:
            raise _busy(file, now)
        if time.monotonic() >= deadline:
            return
        time.sleep(BEAT_SECONDS / 5)
        now = _read(file, Lock)


def _require_mine(file: Location, run: dict[str, Any]) -> None:
    now = _read(file, Lock)
    if now and now["run"] != run["run"]:
        raise _busy(file, now)


def _busy(file: Location, lock: Lock) -> BusyError:
    return BusyError(
        f"{file}: another run ({lock['command']}) is at work on this campaign, process {lock['pid']} on {lock['host']} "
        f"since {lock['started_at'][:19]} UTC; wait for it, or stop it and run again"
    )


def is_living(beat: Sign) -> bool:
    """Whether a run lives, by its last sign of life. The clocks of the machines are taken to agree."""
    age = datetime.now(UTC) - datetime.fromisoformat(beat["at"])
    return beat["is_running"] and age.total_seconds() < PATIENCE_SECONDS and not _is_known_dead(beat)


def _is_known_dead(beat: Sign) -> bool:
    here = _machine()
    if here and beat.get("machine") == here and beat["host"] == socket.gethostname():
        try:
            os.kill(beat["pid"], 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
    return False
