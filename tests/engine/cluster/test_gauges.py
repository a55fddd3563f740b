"""The gauges of a round: those of the table alone, exported by a cluster alone, again and again."""

import time
from typing import Any

import pytest
import ray.util.metrics

from engine.cluster import gauges
from engine.cluster.gauges import TABLE, exported, set_gauge, values_of
from engine.cluster.ray_session import ray_session


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, dict[str, str]]]:
    """What Ray is given."""
    found: list[tuple[str, float, dict[str, str]]] = []

    def record(gauge: Any, value: float, tags: dict[str, str]) -> None:
        found.append((gauge.info["name"], value, tags))

    monkeypatch.setattr(gauges, "_latest", {})
    monkeypatch.setattr(gauges, "EXPORT_SECONDS", 0.02)
    monkeypatch.setattr(ray.util.metrics.Gauge, "set", record)
    return found


def test_no_other_gauge_and_no_other_tag_can_be_set() -> None:
    with pytest.raises(KeyError, match="vaal_labels: its tags are"):
        set_gauge("vaal_labels", 3, "/campaign", 0, shard="a.tar")
    with pytest.raises(KeyError, match="vaal_items"):
        set_gauge("vaal_items", 3, "/campaign", 0)
    assert {tag for row in TABLE for tag in row.tags} == {"stage", "loss", "error"}


def test_every_gauge_is_set_again_and_again_also_one_from_before(sets: list[Any]) -> None:
    where = {"campaign": "/campaign", "round": "3"}
    set_gauge("vaal_stage", 1, "/campaign", 3, stage="train")
    with exported(), exported():
        time.sleep(0.3)
        assert sets.count(("vaal_stage", 1, {**where, "stage": "train"})) > 3
        set_gauge("vaal_stage", 0, "/campaign", 3, stage="train")
        set_gauge("vaal_labels", 20, "/campaign", 3)
    assert sets[-2:] == [("vaal_stage", 0, {**where, "stage": "train"}), ("vaal_labels", 20, where)]
    number = len(sets)
    time.sleep(0.1)
    assert len(sets) == number


def test_a_cluster_exports_and_a_private_ray_does_not(sets: list[Any], local_ray: None) -> None:
    set_gauge("vaal_labels", 20, "/campaign", 3)
    with ray_session("local"):
        time.sleep(0.1)
    assert not sets
    with ray_session("auto"):
        time.sleep(0.1)
    assert sets


def test_a_complete_stage_says_what_it_made() -> None:
    diagnosis = {"auc": 0.75}
    train = {"stage": "train", "counts": {"labelled": 20, "steps": 5}, "diagnosis": diagnosis}
    assert list(values_of(train)) == [("vaal_labels", 20, {}), ("vaal_signal_auc", 0.75, {})]
    untrained = {**train, "counts": {"steps": 0}, "diagnosis": {**diagnosis, "is_trained": False}}
    assert list(values_of(untrained)) == []
    counts = {"scored": 90, "shards": 3, "listed": 100, "quarantined": 10}
    scores = {"stage": "scores", "counts": counts, "errors": {"decode/x": 10}}
    assert list(values_of(scores)) == [
        ("vaal_items_scored", 90, {}),
        ("vaal_shards_committed", 3, {}),
        ("vaal_shards", 3, {}),
        ("vaal_items_quarantined", 10, {"error": "decode/x"}),
    ]
    assert list(values_of({"stage": "report", "counts": {}})) == []
