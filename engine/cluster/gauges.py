"""What Prometheus sees of a campaign at work: a table of gauges, which the driver sets through Ray's own metrics.

All are gauges and none is a counter: a run that goes on after an interruption goes on counting from what is committed.
"""

from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any, NamedTuple, Protocol


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


class Gauges:
    """The gauges of a round, exported by the Ray cluster that this process uses. Several threads may set them.

    Where `is_exported` is false, as for a private Ray without a dashboard, nothing is made and nothing is kept. What is
    set before the cluster is connected is exported with the first value after it.
    """

    def __init__(self, campaign: str, round_number: int, *, is_exported: bool) -> None:
        self._is_exported = is_exported
        self._tags = {"campaign": campaign, "round": str(round_number)}
        self._waiting: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._made: dict[str, Any] = {}
        self._lock = Lock()

    def set(self, name: str, value: float, /, **tags: str) -> None:
        """Set a gauge of `TABLE`. Raises KeyError for a name or a tag that it has not."""
        if tuple(tags) != _ROWS[name].tags:
            raise KeyError(f"{name}: its tags are {_ROWS[name].tags}, not {tuple(tags)}")
        if not self._is_exported:
            return
        import ray

        with self._lock:
            self._waiting[name, tuple(tags.items())] = value
            if ray.is_initialized():
                for (waiting, its_tags), its_value in self._waiting.items():
                    self._gauge(waiting).set(its_value, tags=dict(its_tags))
                self._waiting.clear()

    def _gauge(self, name: str) -> Any:
        from ray.util.metrics import Gauge

        if name not in self._made:
            row = _ROWS[name]
            gauge = Gauge(name, row.text, tag_keys=("campaign", "round", *row.tags))
            self._made[name] = gauge.set_default_tags(self._tags)
        return self._made[name]


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
