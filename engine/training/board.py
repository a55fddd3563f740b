"""How training workers tell the driver how far they are and what they made: an actor between them, and its reader.

Ray Train keeps a worker's report only when a checkpoint comes with it, so results travel this way too.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from engine.errors import VaalError

POLL_SECONDS = 0.5


class _Board:
    """Holds the latest (steps done, losses), lines for a person, and at the end the result, or the error that no retry
    will mend."""

    def __init__(self) -> None:
        self._latest: tuple[int, dict[str, float]] | None = None
        self._result: dict[str, Any] = {}
        self._failure: VaalError | None = None
        self._notes: list[str] = []

    def note(self, line: str) -> None:
        self._notes.append(line)

    def notes(self) -> list[str]:
        notes, self._notes = self._notes, []
        return notes

    def show(self, step: int, losses: dict[str, float]) -> None:
        self._latest = (step, losses)

    def read(self) -> tuple[int, dict[str, float]] | None:
        return self._latest

    def finish(self, result: dict[str, Any]) -> None:
        self._result = result

    def result(self) -> dict[str, Any]:
        return self._result

    def fail(self, error: VaalError) -> None:
        self._failure = error

    def failure(self) -> VaalError | None:
        return self._failure


Board: Any = ray.remote(num_cpus=0)(_Board)


@contextmanager
def following(
    board: Any, on_step: Callable[[int, dict[str, float]], None], on_note: Callable[[str], None]
) -> Iterator[None]:
    """Call these with whatever is new on the board while the body runs, from a thread of its own."""
    done = threading.Event()

    def follow() -> None:
        shown = None
        while True:
            is_last = done.wait(POLL_SECONDS)
            try:
                latest, notes = ray.get([board.read.remote(), board.notes.remote()])
            except ray.exceptions.RayError:
                return
            for note in notes:
                on_note(note)
            if latest is not None and latest != shown:
                shown = latest
                on_step(*latest)
            if is_last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
