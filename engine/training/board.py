"""An actor through which training workers report progress and results to the driver, and its reader.

Ray Train keeps a worker's report only with a checkpoint, so results travel this way too.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
from ray.train import UserCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.campaign.heartbeat import TrainState
from engine.campaign.stages import Effort
from engine.errors import VaalError, one_line

POLL_SECONDS = 0.5
MOST_SHOWN = 300
"""Characters of an error that is not ours."""
MOST_LOSSES = 3
"""Losses of workers without a checkpoint in between after which training ends. With progress there may be any number:
a long training on machines that may be taken away loses many."""


class News(NamedTuple):
    """What workers reported since the last news: the losses of further steps, in `rows` as in metrics.parquet, and
    `notes` for the log.

    After a loss of workers, rows of steps that were reported before come again. `step`, the steps done, and `losses`,
    the last of each name, are 0 and empty before the first step, `saved_at`, the Unix time of the newest checkpoint or
    else of the begin, is None before that.
    """

    step: int
    losses: dict[str, float]
    saved_at: float | None
    rows: list[dict[str, Any]]
    notes: list[str]


class _Board:
    """Holds the news, and the result or an error that retries cannot fix."""

    def __init__(self) -> None:
        self._num_lost, self._was_lost, self._is_at_work = 0, False, False
        self._step, self._losses = 0, dict[str, float]()
        self._rows: list[dict[str, Any]] = []
        self._saved_at: float | None = None
        self._result: dict[str, Any] = {}
        self._failure: VaalError | None = None
        self._notes: list[str] = []
        self._left_out: dict[str, str] = {}
        self._began: tuple[int, int] | None = None

    def note(self, line: str) -> None:
        self._notes.append(line)

    def show(self, step: int, losses: dict[str, float], rows: list[dict[str, Any]]) -> None:
        self._step, self._losses = step, losses
        self._rows += rows

    def news(self) -> News:
        """What there is since the last call."""
        news = News(self._step, self._losses, self._saved_at, self._rows, self._notes)
        self._rows, self._notes = [], []
        return news

    def arrive(self) -> None:
        """A worker has its machine."""
        self._is_at_work = True

    def begin(self, step: int, workers: int, wanted: int, rows: list[dict[str, Any]]) -> None:
        """All workers are there, and begin at a step, after these rows of a checkpoint."""
        self._began = self._began or (step, workers)
        self._saved_at, self._rows = time.time(), rows
        if self._was_lost:
            self._notes.append(f"a worker was lost; going on from step {step} with {workers} of {wanted}")
        self._was_lost = False

    def began(self) -> tuple[int, int]:
        """The step at which training began, and the number of its workers then."""
        return self._began or (0, 1)

    def is_at_work(self) -> bool:
        """Whether workers train now, by all that is known."""
        return self._is_at_work

    def save(self) -> None:
        """There is a new checkpoint."""
        self._num_lost, self._saved_at = 0, time.time()

    def lose(self, why: str) -> None:
        """Workers ended with an error, or were killed."""
        self._num_lost += 1
        self._is_at_work, self._was_lost = False, True
        if self._num_lost >= MOST_LOSSES and self._failure is None:
            self._failure = VaalError(
                f"training lost its workers {MOST_LOSSES} times without a new checkpoint, the last time by {why}; a "
                "run of the same command goes on; shorter times between checkpoints: --set train.checkpoint_seconds=10"
            )

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


_BoardActor: Any = ray.remote(num_cpus=0)(_Board)


def make_board() -> Any:
    """A board beside the driver, with which it ends: on another node it could be lost before."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return _BoardActor.options(scheduling_strategy=here).remote()


class Steps:
    """How far training is, by what the board says. One thread writes, others may read."""

    def __init__(self, total: int) -> None:
        self._total, self._begun_at = total, time.monotonic()
        self._now = self._first = (0, self._begun_at)
        self._has_first = False

    def reach(self, step: int) -> None:
        """So many steps are done."""
        self._now = step, time.monotonic()
        if not self._has_first:
            self._first, self._has_first = self._now, True

    def state(self) -> TrainState:
        """What `vaal status` shows."""
        (first, begun_at), (now, at) = self._first, self._now
        left = round((at - begun_at) * (self._total - now) / (now - first)) if now > first else None
        return {"steps": now, "total_steps": self._total, "seconds_left": left}

    def effort(self, began: int, workers: int) -> Effort:
        """What training cost, which `began` at this step."""
        return {"seconds": round(time.monotonic() - self._begun_at, 3), "done": self._total - began, "workers": workers}


class Losses(UserCallback):
    """Tells the board, from Ray Train's controller, of checkpoints and of workers that were lost."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:  # noqa: ARG002
        if checkpoint is not None:
            self._board.save.remote()

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        error = worker_exceptions[min(worker_exceptions)]
        self._board.lose.remote(f"{type(error).__name__}: {one_line(error)[:MOST_SHOWN]}")


@contextmanager
def following(board: Any, on_news: Callable[[News], None]) -> Iterator[None]:
    """Call this with news from the board while the body runs, from another thread; the last time at its end."""
    done = threading.Event()

    def follow() -> None:
        while True:
            is_last = done.wait(POLL_SECONDS)
            try:
                on_news(ray.get(board.news.remote()))
            except ray.exceptions.RayError:
                return
            if is_last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
