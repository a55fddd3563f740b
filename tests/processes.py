"""Programs that tests start and wait for, also several at once, as the workers of a training are."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from tests.servers import free_port

WAIT_SECONDS = 150.0
"""Longer than anything takes that these programs are waited for: what lasts longer hangs."""


def wait_until(
    condition: Callable[[], bool], ended: Callable[[], object] = lambda: None, seconds: float = WAIT_SECONDS
) -> None:
    """Return once the condition holds. Fails after these seconds, and as soon as `ended` gives anything but None: what
    became of the program that is waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert (found := ended()) is None, found
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


class Processes:
    """What a module, called with the folders HOME and OUT, writes with any number of processes. Those of the first
    numbers begin at once; others are started when they are asked for."""

    def __init__(self, module: str, home: str, folder: Path, worlds: tuple[int, ...] = ()) -> None:
        self._module, self._home, self._folder = module, home, folder
        self._processes = {world: self._start(world) for world in worlds}

    def of(self, world: int) -> Path:
        """The folder with what so many processes wrote, which have ended."""
        if world not in self._processes:
            self._processes[world] = self._start(world)
        for rank, process in enumerate(self._processes[world]):
            assert process.wait(300) == 0, self._log(world, rank).read_text()[-3000:]
        return self._folder

    def end(self) -> None:
        for process in chain.from_iterable(self._processes.values()):
            process.kill()
            process.wait()

    def _log(self, world: int, rank: int) -> Path:
        return self._folder / f"{world}-{rank}.log"

    def _start(self, world: int) -> list[subprocess.Popen[bytes]]:
        words = [sys.executable, "-m", self._module, self._home, str(self._folder)]
        where = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        processes = []
        for rank in range(world):
            variables = {**os.environ, **where, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            with self._log(world, rank).open("w") as log:
                processes.append(subprocess.Popen(words, env=variables, stdout=log, stderr=log))
        return processes
