"""An actor through which training workers report progress and results to the driver, and its reader.

Ray Train keeps a worker's report only with a checkpoint, so results travel this way too.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from engine.errors import VaalError

POLL_SECONDS = 0.5


class _Board:
    """Holds the latest (steps done, losses), lines for the log, and the result or an error that retries cannot fix."""

    def __init__(self) -> None:
        self._latest: tuple[int, dict[str, float]] | None = None
        self._result: dict[str, Any] = {}
        self._failure: VaalError | None = None
        self._notes: list[str] = []
        self._left_out: dict[str, str] = {}

    def note(self, line: str) -> None:
        self._notes.append(line)

    def show(self, step: int, losses: dict[str, float]) -> None:
        self._latest = (step, losses)

    def news(self) -> tuple[tuple[int, dict[str, float]] | None, list[str]]:
        """The latest step, and the lines since the last call."""
        notes, self._notes = self._notes, []
        return self._latest, notes

    def leave_out(self, shards: dict[str, str]) -> None:
        """Damaged shards, with their faults."""
        self._left_out |= shards

    def left_out(self) -> dict[str, str]:
        return self._left_out

    def finish(self, result: dict[str, Any]) -> None:
        self._result = result

    def fail(self, error: VaalError) -> None:
        self._failure = error

    def outcome(self) -> tuple[dict[str, Any], VaalError | None]:
        return self._result, self._failure


Board: Any = ray.remote(num_cpus=0)(_Board)


@contextmanager
def following(
    board: Any, on_step: Callable[[int, dict[str, float]], None], on_note: Callable[[str], None]
) -> Iterator[None]:
    """Call these with news from the board while the body runs, from another thread."""
    done = threading.Event()

    def follow() -> None:
        shown = None
        while True:
            is_last = done.wait(POLL_SECONDS)
            try:
                latest, notes = ray.get(board.news.remote())
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
