"""What Prometheus sees of a campaign at work: a table of gauges, which the driver sets through Ray's own metrics.

All are gauges and none is a counter: a run that goes on after an interruption goes on counting from what is committed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Any, NamedTuple, Protocol, TypeAlias

EXPORT_SECONDS = 1.0
"""The shortest interval in which Ray exports what was set."""


class GaugeRow(NamedTuple):
    """A gauge: its name in Prometheus after Ray's prefix `ray_`, its tags besides `campaign` and `round`, and what its
    value is, with its unit. A tag has few values: none grows with the pool."""

    name: str
    tags: tuple[str, ...]
    text: str


TABLE = (
    GaugeRow("vaal_stage", ("stage",), "1 while the stage is at work, then 0"),
    GaugeRow("vaal_waiting_seconds", (), "for how long the stage has waited for machines; 0 while it has them"),
    GaugeRow("vaal_labels", (), "labelled images that the round trains on"),
    GaugeRow("vaal_train_step", (), "iterations of training that are done"),
    GaugeRow("vaal_train_steps", (), "all iterations of the training"),
    GaugeRow("vaal_train_loss", ("loss",), "the newest mean of each loss over the workers"),
    GaugeRow("vaal_checkpoint_time_seconds", (), "Unix time of the newest checkpoint; before the first, of the start"),
    GaugeRow("vaal_signal_auc", (), "the out-of-fold AUC of the discriminators, 0 to 1; after training"),
    GaugeRow("vaal_shards", (), "shards of the pool"),
    GaugeRow("vaal_shards_committed", (), "shards whose scores are written"),
    GaugeRow("vaal_items_scored", (), "scored images of those shards"),
    GaugeRow("vaal_items_quarantined", ("error",), "images of those shards that could not be scored, by error class"),
    GaugeRow("vaal_items_per_second", (), "images scored a second, the mean since scoring began"),
    GaugeRow("vaal_picked", (), "images that the round's selection picked"),
)
_ROWS = {row.name: row for row in TABLE}
_COUNTS = {
    "train": {"vaal_labels": "labelled"},
    "scores": {"vaal_items_scored": "scored", "vaal_shards_committed": "shards", "vaal_shards": "shards"},
    "selection": {"vaal_picked": "picked"},
}
"""The counts of a complete stage's manifest that are gauges."""


class Measure(Protocol):
    """Takes the value of a gauge of `TABLE`, with its tags."""

    def __call__(self, name: str, value: float, /, **tags: str) -> None: ...


def unmeasured(_name: str, _value: float, /, **_tags: str) -> None:
    """Takes a value and does nothing."""


_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
_latest: dict[_Key, float] = {}
"""What this process measured last, by name and tags."""
_is_exporting = Lock()


def set_gauge(name: str, value: float, /, campaign: str, round_number: int, **tags: str) -> None:
    """Set a gauge of `TABLE` for a round of a campaign. Threads may.

    Raises KeyError for a name or a tag that the table has not.
    """
    if tuple(tags) != _ROWS[name].tags:
        raise KeyError(f"{name}: its tags are {_ROWS[name].tags}, not {tuple(tags)}")
    _latest[name, (("campaign", campaign), ("round", str(round_number)), *tags.items())] = value


@contextmanager
def exported() -> Iterator[None]:
    """Give the gauges to the Ray that this process is connected to, while the body runs.

    All of them, again and again: Ray exports what was set since it last did, and forgets a gauge that was not set for
    two of its intervals. So those of a process that is gone end too.
    """
    if not _is_exporting.acquire(blocking=False):
        yield
        return
    from ray.util.metrics import Gauge

    made = {row.name: Gauge(row.name, row.text, tag_keys=("campaign", "round", *row.tags)) for row in TABLE}
    is_over = Event()

    def export() -> None:
        while True:
            is_last = is_over.wait(EXPORT_SECONDS)
            for (name, tags), value in list(_latest.items()):
                made[name].set(value, tags=dict(tags))
            if is_last:
                return

    thread = Thread(target=export, name="gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        _is_exporting.release()


def values_of(manifest: Mapping[str, Any]) -> Iterator[tuple[str, float, dict[str, str]]]:
    """The gauges that a complete stage's manifest decides: name, value, tags."""
    for name, count in _COUNTS.get(manifest["stage"], {}).items():
        # Training by an earlier version did not count its labels.
        if count in manifest["counts"]:
            yield name, manifest["counts"][count], {}
    diagnosis = manifest.get("diagnosis")
    if diagnosis and diagnosis.get("is_trained", True):
        yield "vaal_signal_auc", diagnosis["auc"], {}
    for error, count in manifest.get("errors", {}).items():
        yield "vaal_items_quarantined", count, {"error": error}
