"""Where people watch the losses of a training while it goes on: TensorBoard, MLflow, Weights & Biases.

The driver writes them, so that workers need no account and no network. A tracker has a thread of its own: one that is
slow or fails holds up nothing.
"""

import importlib.util
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from engine.campaign.freshness import fingerprint
from engine.errors import ConfigError, one_line
from engine.storage.location import Location, masked
from engine.training.metrics import LOSSES

END_SECONDS = 30.0
"""A tracker has this long at the end of training to take what is left."""
STOP_SECONDS = 2.0
"""The same after Ctrl-C or an error."""
UPLOAD_SECONDS = 30.0
"""Events go to an object store no more often, and take at most a twentieth of the time."""
MLFLOW_BATCH = 1000
"""Values that MLflow takes in a request."""
MOST_CHARACTERS = 300

Row = dict[str, Any]
"""A step's losses, as in metrics.parquet."""
Log = Callable[[str], None]


class About(NamedTuple):
    """What is tracked: a training, by what decides it, which is the same in a training that goes on; its options, and
    its folder."""

    campaign: str
    round: int
    training: str
    options: dict[str, Any]
    folder: Location

    @property
    def title(self) -> str:
        return f"{self.campaign} round {self.round:03d}"

    @property
    def run_id(self) -> str:
        """A training that goes on has it again; the same training of another round or campaign has its own."""
        return fingerprint(campaign=self.campaign, round=self.round, training=self.training)[:16]


class Tracker(Protocol):
    """`last` is the last step that it has from an earlier run of this training, -1 for none."""

    last: int

    def log(self, rows: list[Row]) -> None:
        """Take the losses of further steps, in their order, so that a reader sees them now."""

    def close(self) -> None: ...


def points(row: Row) -> dict[str, float]:
    """The losses that a step has, by the names that trackers give them."""
    return {f"loss/{name}": row[name] for name in LOSSES if row[name] is not None}


class TensorBoard:
    """Events in the stage's folder; those of an earlier run are replaced, because all steps come again."""

    last = -1

    def __init__(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = about.folder / "tensorboard"
        for name in self._folder.children():
            (self._folder / name).delete()
        self._scratch = None if self._folder.is_local else tempfile.TemporaryDirectory()
        self._writer = SummaryWriter(self._scratch.name if self._scratch else self._folder.path)
        self._next_upload = time.monotonic() + UPLOAD_SECONDS

    def log(self, rows: list[Row]) -> None:
        for row in rows:
            for name, value in points(row).items():
                self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()
        if self._scratch and time.monotonic() >= self._next_upload:
            self._upload(self._scratch.name)

    def close(self) -> None:
        self._writer.close()
        if self._scratch:
            self._upload(self._scratch.name)
            self._scratch.cleanup()

    def _upload(self, scratch: str) -> None:
        begin = time.monotonic()
        for file in Path(scratch).iterdir():
            with file.open("rb") as events:
                (self._folder / file.name).write_file(events)
        now = time.monotonic()
        self._next_upload = now + max(UPLOAD_SECONDS, 20 * (now - begin))


class MLflow:
    """A run of the experiment `MLFLOW_EXPERIMENT_NAME`, or vaal, at `MLFLOW_TRACKING_URI`."""

    def __init__(self, about: About) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "vaal")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        same = self._client.search_runs([experiment], f"tags.`vaal.run` = '{about.run_id}'", max_results=1)
        if same:
            self._run, self.last = same[0].info.run_id, int(same[0].data.tags.get("vaal.last_step", "-1"))
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {"vaal.run": about.run_id, "vaal.campaign": about.campaign, "vaal.round": str(about.round)}
        self._run, self.last = self._client.create_run(experiment, tags=tags, run_name=about.title).info.run_id, -1
        self._client.log_batch(self._run, params=[Param(key, str(value)) for key, value in about.options.items()])

    def log(self, rows: list[Row]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        found = [Metric(key, value, now, row["step"]) for row in rows for key, value in points(row).items()]
        for begin in range(0, len(found), MLFLOW_BATCH):
            self._client.log_batch(self._run, metrics=found[begin : begin + MLFLOW_BATCH])
        self._client.set_tag(self._run, "vaal.last_step", str(rows[-1]["step"]))

    def close(self) -> None:
        self._client.set_terminated(self._run)


class WandB:
    """A run of the project `WANDB_PROJECT`, or vaal. With `WANDB_MODE=offline` it is a folder below `WANDB_DIR`."""

    def __init__(self, about: About) -> None:
        import wandb

        # Without a login it is an error at once, and nobody is asked: this is not the main thread.
        settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, login_timeout=1)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "vaal"),
            id=f"vaal-{about.run_id}", name=about.title, resume="allow", settings=settings,
            config={"campaign": about.campaign, "round": about.round, **about.options},
        )  # fmt: skip
        self.last = self._run.step - 1

    def log(self, rows: list[Row]) -> None:
        for row in rows:
            self._run.log(points(row), step=int(row["step"]))

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[About], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
"""By the name of the module that each needs, which is also the extra of this package that has it."""


def require_installed(names: Sequence[str]) -> None:
    """Raises ConfigError for a tracker that is not installed, before anything is paid for."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"train.trackers: {name} is not installed; pip install 'vaal[{name}]', or leave it out: "
                '--set train.trackers=["tensorboard"]'
            )


class _Feed:
    """A tracker and its thread. A failure is logged once, and what comes later is dropped."""

    def __init__(self, name: str, about: About, log: Log) -> None:
        self._name, self._about, self._log = name, about, log
        self._rows: queue.SimpleQueue[list[Row] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)
        self._thread.start()

    def put(self, rows: list[Row]) -> None:
        if rows and self._thread.is_alive():
            self._rows.put(rows)

    def end(self, seconds: float) -> None:
        self._rows.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._log(f"train.trackers: {self._name} did not take the last losses within {seconds:.0f} s")

    def _follow(self) -> None:
        try:
            tracker = TRACKERS[self._name](self._about)
            while (rows := self._rows.get()) is not None:
                # What workers do again after a loss has been seen.
                if further := [row for row in rows if row["step"] > tracker.last]:
                    tracker.log(further)
                    tracker.last = further[-1]["step"]
            tracker.close()
        except Exception as error:  # noqa: BLE001, whatever a library of others raises
            self._log(f"train.trackers: {self._name}: {without_secrets(error)}; training goes on without it")


@contextmanager
def tracked(names: Sequence[str], about: About, log: Log) -> Iterator[Callable[[list[Row]], None]]:
    """What gives rows to these trackers while the body runs. It does not wait, and does not raise."""
    feeds = [_Feed(name, about, log) for name in names]

    def put(rows: list[Row]) -> None:
        for feed in feeds:
            feed.put(rows)

    seconds = STOP_SECONDS
    try:
        yield put
        seconds = END_SECONDS
    finally:
        for feed in feeds:
            feed.end(seconds)


def without_secrets(error: Exception) -> str:
    """An error of a library in one line, without credentials: those of URLs, and the values of variables of the
    environment that hold one."""
    text = " ".join(masked(word) if "://" in word else word for word in one_line(error).split())
    for name, value in os.environ.items():
        if re.search(r"KEY|TOKEN|PASSWORD|SECRET", name) and len(value) > 3:
            text = text.replace(value, "***")
    return f"{type(error).__name__}: {text[:MOST_CHARACTERS]}"
