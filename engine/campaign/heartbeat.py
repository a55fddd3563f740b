"""Signs of life in the campaign's storage: a second run finds the first, and `vaal status` shows how far training and
scoring are.

Whether a run of another machine lives is seen by a change of its sign, never by its clock: clocks differ.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import Field
from typing_extensions import TypedDict

from engine.cluster.interrupting import repeated
from engine.errors import BusyError, ConfigError, InputError, StorageError
from engine.storage.documents import Moment, read_document
from engine.storage.location import Location

LOG = logging.getLogger("vaal.campaign")
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 3 * BEAT_SECONDS
"""A run without a sign of life for this long is dead."""
SETTLING_SECONDS = 0.05
SETTLING_WRITES = 3.0
"""Of two runs that start at the same moment, the one whose sign came first sees the other's after SETTLING_SECONDS, or
after so many times what its own took: on an object store that may be long."""
MOST_SKEW_SECONDS = 86_400.0
"""Clocks do not differ by more. A run whose last sign is older is dead, and need not be watched."""
LOCK_FILE = "running.json"
PROGRESS_FILE = "progress.json"
"""How far a stage is while it runs, in its folder; of scoring in that of its ledger."""


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


Seconds = Annotated[int, Field(ge=0, lt=10**10)]


class State(TypedDict):
    """How far scoring is: all that is committed, and the speed of this run."""

    shards: int
    total_shards: int
    items: int
    items_per_second: float
    seconds_left: Seconds | None
    errors: dict[str, int]


class Beat(State, Sign):
    """A sign of life of scoring."""


class TrainState(TypedDict):
    """How far training is."""

    steps: int
    total_steps: int
    seconds_left: Seconds | None


class TrainBeat(TrainState, Sign):
    """A sign of life of training."""


SomeSign = TypeVar("SomeSign", bound=Sign)
_held: ContextVar[frozenset[str]] = ContextVar("campaigns that this run has to itself", default=frozenset())


@contextmanager
def alone(home: Location, command: str) -> Iterator[None]:
    """Have a campaign to oneself while the body runs. What the body calls may ask for it again.

    Raises BusyError if another run has it; a dead run never does. Also where another run takes it meanwhile, because
    nothing was seen of this one for too long, as after a night's sleep of the machine: then the body is interrupted.
    """
    if home.url in _held.get():
        yield
        return
    file, run = home / LOCK_FILE, _new_run()
    _require_free(file)

    def write() -> None:
        file.write_json({**run, "at": _now(), "is_running": True, "command": command})

    def beat() -> None:
        with suppress(StorageError):
            # What cannot be read may still be this run's.
            with suppress(InputError, ConfigError):
                _require_mine(file, run)
            write()

    began = time.monotonic()
    write()
    time.sleep(max(SETTLING_SECONDS, SETTLING_WRITES * (time.monotonic() - began)))
    _require_mine(file, run)
    token = _held.set(_held.get() | {home.url})
    try:
        with repeated(beat, BEAT_SECONDS):
            yield
    finally:
        _held.reset(token)
        # A failure here must not hide the error that stopped the run. What is left is seen to be dead.
        with suppress(OSError, StorageError, InputError):
            # But for one that a run which took over caused: it changes the files of this one.
            _require_mine(file, run)
            file.delete()


@contextmanager
def beating(file: Location, state: Callable[[], State | TrainState]) -> Iterator[None]:
    """Write the state into a file every `BEAT_SECONDS` while the body runs. At its end the file says so."""
    run = _new_run()

    def write(*, is_running: bool = True) -> None:
        file.write_json({**run, "at": _now(), "is_running": is_running, **state()})

    def beat() -> None:
        with suppress(StorageError):
            write()

    write()
    try:
        with repeated(beat, BEAT_SECONDS):
            yield
    finally:
        # A failure here must not hide the error that stopped the run.
        with suppress(StorageError):
            write(is_running=False)


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


def read_heartbeat(file: Location, kind: type[SomeSign]) -> tuple[SomeSign | None, bool]:
    """The last sign of life of a run, None where there was none; and whether the run lives.

    Where that is not certain, as of a run of another machine, the next sign is waited for: up to `PATIENCE_SECONDS`.

    Raises:
        InputError: the file is damaged.
        ConfigError: a field is missing, or is not of its type.
    """
    before = _read(file, kind)
    if before is None or _is_known(before) is not None:
        return before, bool(before and _is_known(before))
    now = _changed(file, kind, before)
    return now, now is not None and now["is_running"] and now != before


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
    while now and now["is_running"] and not _is_known_dead(now):
        other = f"another run ({now['command']}), process {now['pid']} on {now['host']}"
        LOG.info("waiting up to %.0f s for a sign of life of %s; Ctrl-C ends this", PATIENCE_SECONDS, other)
        now = _changed(file, Lock, before)
        if now == before:
            return
        if now and now["is_running"]:
            raise _busy(file, now)
        before = now


def _changed(file: Location, kind: type[SomeSign], before: SomeSign | None) -> SomeSign | None:
    """A sign as soon as it is another one, or as it still is when a living run would have changed it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (now := _read(file, kind)) == before and time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 5)
    return now


def _require_mine(file: Location, run: dict[str, Any]) -> None:
    """Raises BusyError if the lock that a run has written is another's, or gone."""
    now = _read(file, Lock)
    if now is None:
        why = "gone while this run was at work: another run took over and has ended, or somebody deleted it"
        raise BusyError(f"{file}: {why}; run the same command again")
    if now["run"] != run["run"]:
        raise _busy(file, now)


def _busy(file: Location, lock: Lock) -> BusyError:
    return BusyError(
        f"{file}: another run ({lock['command']}) is at work in this folder, process {lock['pid']} on {lock['host']} "
        f"since {lock['started_at'][:19]} UTC; wait for it, or stop it and run again"
    )


def _is_known(sign: Sign) -> bool | None:
    """Whether a run lives, by its last sign alone; None where that does not tell."""
    age = (datetime.now(UTC) - datetime.fromisoformat(sign["at"])).total_seconds()
    if not sign["is_running"] or _is_known_dead(sign) or age > MOST_SKEW_SECONDS:
        return False
    return True if _is_here(sign) and 0 <= age < PATIENCE_SECONDS else None


def _is_here(sign: Sign) -> bool:
    """Whether a run's process number and clock mean something here."""
    here = _machine()
    return bool(here) and sign.get("machine") == here and sign["host"] == socket.gethostname()


def _is_known_dead(sign: Sign) -> bool:
    if _is_here(sign):
        try:
            os.kill(sign["pid"], 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
    return False
