"""`python -m jobs score` as a process that can be killed, and everything that it has started."""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.processes import WAIT_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
MARK = "VAAL_FAULT_TEST"
SCORER = "MapWorker"
"""Part of what Ray Data calls the actors that it runs a class in."""
WORKER = re.compile(r"ray::(?!IDLE|\w*Agent\b)")


class Ended(NamedTuple):
    """What a command left behind."""

    status: int
    output: str
    errors: str
    seconds: float

    @property
    def plain_errors(self) -> str:
        """Standard error without the colours of a terminal."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.errors)

    @property
    def error_lines(self) -> list[str]:
        """The lines with which a command says why it failed."""
        return [line for line in self.plain_errors.splitlines() if line.startswith("error: ")]

    def one_error(self) -> str:
        """The only line that says why; a traceback is none."""
        assert self.status > 0, self
        assert "Traceback" not in self.errors, self.errors
        assert len(self.error_lines) == 1, f"status {self.status}, standard error: {self.errors!r}"
        return self.error_lines[0]


def environment(**more: str) -> dict[str, str]:
    """What commands run with: the code of this folder, and no tokens of whoever runs the tests."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A busy machine takes longer to start a node than the half minute that Ray waits for it.
        "RAY_raylet_start_wait_time_s": "120",
        **more,
    }


def _hears_ctrl_c() -> None:
    """Tests that a shell runs behind ignore Ctrl-C, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Driver:
    """A running command in a session of its own. What it has started bears its mark."""

    def __init__(self, words: list[str], variables: dict[str, str], folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.files = [folder / f"{self.mark}.{name}" for name in ("out", "err")]
        self.began = time.monotonic()
        # Files, for a pipe is not at its end before the last process of Ray is.
        with self.files[0].open("w") as out, self.files[1].open("w") as errors:
            self.process = subprocess.Popen(
                words, env={**environment(**variables), MARK: self.mark}, cwd=ROOT, stdin=subprocess.DEVNULL,
                stdout=out, stderr=errors, start_new_session=True, preexec_fn=_hears_ctrl_c,
            )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def ended(self) -> Ended | None:
        """What it left behind; None while it runs."""
        return None if self.is_running else self.wait()

    def wait(self, seconds: float = WAIT_SECONDS) -> Ended:
        """Raises subprocess.TimeoutExpired when it hangs."""
        status = self.process.wait(seconds)
        return Ended(status, *(file.read_text() for file in self.files), time.monotonic() - self.began)

    def wait_for_words(self, words: str, seconds: float = WAIT_SECONDS) -> float:
        """Until it has printed what matches. Returns the seconds since its start."""
        wait_until(lambda: any(re.search(words, file.read_text()) for file in self.files), self.ended, seconds)
        return time.monotonic() - self.began

    def kill(self, *, alone: bool = False) -> None:
        """SIGKILL to its process group, so to Ray's servers but not to Ray's workers; or to itself alone."""
        (os.kill if alone else os.killpg)(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def started(self) -> list[psutil.Process]:
        """All processes with its mark, itself included, whoever their parent is now."""
        return [process for process in psutil.process_iter() if _mark(process) == self.mark]

    def workers(self) -> list[psutil.Process]:
        """The processes in which Ray runs tasks and actors; not its agents, with which a node ends."""
        return [process for process in self.started() if WORKER.match(command(process))]

    def end(self) -> list[str]:
        """SIGKILL to all that is left. Returns their commands."""
        left = self.started()
        names = [command(process) for process in left]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, 10)
        self.process.wait(10)
        return names


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK) if process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, OSError):
        return None


def running(
    command: str, campaign: str, *arguments: str, before: tuple[str, ...] = (), **variables: str
) -> AbstractContextManager[Driver]:
    """A command on a campaign. `before` are the words of a program that runs it. Whatever is left of it ends here."""
    return started([*before, sys.executable, "-m", "jobs", command, campaign, *arguments], variables)


@contextmanager
def started(words: list[str], variables: dict[str, str]) -> Iterator[Driver]:
    """Any program. Whatever is left of it ends here."""
    with tempfile.TemporaryDirectory() as folder:
        driver = Driver(words, variables, Path(folder))
        try:
            yield driver
        finally:
            driver.end()


def run(command: str, campaign: str, *arguments: str, before: tuple[str, ...] = (), **variables: str) -> Ended:
    """A command from its start to its end."""
    with running(command, campaign, *arguments, before=before, **variables) as driver:
        return driver.wait()


def kill_one(driver: Driver, draw: random.Random, kind: str = "") -> str | None:
    """Kill a random worker. Returns what it did; None where there is none."""
    found = [process for process in driver.workers() if kind in command(process)]
    if not found:
        return None
    victim = draw.choice(found)
    name = command(victim)
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return None
    return name
