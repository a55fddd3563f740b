"""The gauges of a round: those of the table alone, none without a cluster, and none lost before it is connected."""

import pytest
import ray

from engine.cluster.gauges import TABLE, Gauges, values_of


def test_a_private_ray_exports_nothing() -> None:
    gauges = Gauges("/campaign", 0, is_exported=False)
    gauges.set("vaal_labels", 3)
    assert not gauges._waiting
    assert not gauges._made


def test_no_other_gauge_and_no_other_tag_can_be_set() -> None:
    gauges = Gauges("/campaign", 0, is_exported=False)
    with pytest.raises(KeyError, match="vaal_labels: its tags are"):
        gauges.set("vaal_labels", 3, shard="a.tar")
    with pytest.raises(KeyError, match="vaal_items"):
        gauges.set("vaal_items", 3)
    assert {tag for row in TABLE for tag in row.tags} == {"stage", "loss", "error"}


def test_what_is_set_before_the_cluster_is_connected_is_exported_after(
    monkeypatch: pytest.MonkeyPatch, local_ray: None
) -> None:
    gauges = Gauges("/campaign", 3, is_exported=True)
    with monkeypatch.context() as patch:
        patch.setattr(ray, "is_initialized", lambda: False)
        gauges.set("vaal_stage", 1, stage="train")
        gauges.set("vaal_stage", 0, stage="train")
        gauges.set("vaal_stage", 1, stage="score")
    assert len(gauges._waiting) == 2
    gauges.set("vaal_labels", 20)
    assert not gauges._waiting
    assert gauges._made.keys() == {"vaal_stage", "vaal_labels"}
    assert gauges._made["vaal_stage"].info["default_tags"] == {"campaign": "/campaign", "round": "3"}


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
