"""A round as Prometheus sees it: every gauge moves, and all expressions of the dashboard and the alerts are right."""

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.campaign.manifests import ScoresManifest, SelectionManifest, TrainManifest, read_manifest
from engine.campaign.opening import open_campaign
from engine.cluster.gauges import TABLE
from tests.cluster.prometheus import ALERTS, DASHBOARD, Prometheus, needs_prometheus, prometheus, promtool
from tests.faults.campaigns import make_campaign, make_pool
from tests.faults.driver import Driver, running, started, wait_until
from tests.servers import free_port

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs/operations.md"
RAY = str(Path(sys.executable).parent / "ray")
PANELS = json.loads(DASHBOARD.read_text())["panels"]
SHOWN = [target["expr"] for panel in PANELS for target in panel["targets"]]
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
ASKED = [rule["expr"] for rule in RULES]
QUICK = {"RAY_metrics_report_interval_ms": "1000"}
SETTINGS = ("train.max_steps=60", "train.batch_size=16", "train.checkpoint_steps=20", "train.folds=2")


def test_the_table_of_the_docs_is_the_table_of_the_code() -> None:
    rows = re.findall(r"^\| `ray_(vaal_\w+)` \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE)
    assert rows == [(row.name, ", ".join(f"`{tag}`" for tag in row.tags), row.text) for row in TABLE]


def test_the_dashboard_shows_every_gauge_and_nothing_else_is_asked_for() -> None:
    names = {f"ray_{row.name}" for row in TABLE}
    assert {name for expression in SHOWN for name in re.findall(r"ray_\w+", expression)} == names
    assert {name for expression in ASKED for name in re.findall(r"ray_\w+", expression)} < names
    assert all("$campaign" in expression and "$round" in expression for expression in SHOWN)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


@needs_prometheus
def test_each_alert_fires_and_keeps_silent_as_it_should(tmp_path: Path) -> None:
    cases = yaml.safe_load((HERE / "alerts_test.yaml").read_text())
    texts = {rule["alert"]: rule["annotations"]["description"] for rule in RULES}
    fired = set()
    for case in (case for test in cases["tests"] for case in test["alert_rule_test"]):
        for alert in case["exp_alerts"]:
            alert["exp_annotations"]["description"] = texts[case["alertname"]]
            fired.add(case["alertname"])
    assert fired == texts.keys()
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({**cases, "rule_files": [str(ALERTS)]}))
    for words in (["check", "rules", ALERTS], ["test", "rules", tmp_path / "tests.yaml"]):
        ended = promtool(*words)
        assert ended.returncode == 0, ended.stdout + ended.stderr


@contextmanager
def head(folder: Path) -> Iterator[tuple[str, int]]:
    """A Ray without CPUs: its address, and the port of its metrics."""
    port, metrics = free_port(), free_port()
    ports = [f"--port={port}", f"--dashboard-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"]
    words = [RAY, "start", "--head", "--num-cpus=0", f"--temp-dir={folder}", f"--metrics-export-port={metrics}", *ports]
    with started([*words, "--block"], QUICK) as process:
        wait_until(lambda: "Ray runtime started" in process.files[0].read_text(), process)
        yield f"127.0.0.1:{port}", metrics


def until(condition: Callable[[], Any], driver: Driver) -> None:
    """As `wait_until`, and kinder to what is asked."""
    wait_until(lambda: time.sleep(0.3) or bool(condition()), driver)  # type: ignore[func-returns-value]


@needs_prometheus
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_gauge_moves_in_a_round_and_every_expression_has_a_value(tmp_path: Path) -> None:
    # Scored in some seconds: no speed is known in the first one.
    pool = make_pool(tmp_path / "pool", copies=12)
    campaign = make_campaign(str(tmp_path / "campaign"), f"{pool.folder}/*.tar", pool.labels, *SETTINGS)
    begin = time.time()
    # The paths of Ray's sockets must be short.
    with (
        tempfile.TemporaryDirectory() as short,
        head(Path(short)) as (address, port),
        prometheus(tmp_path, [f"127.0.0.1:{port}"]) as server,
    ):
        with running("round", campaign, "--address", address, **QUICK) as driver:
            until(lambda: any(float(row["value"][1]) > 1 for row in server.now("ray_vaal_waiting_seconds")), driver)
            with started([RAY, "start", f"--address={address}", "--num-cpus=2", "--block"], QUICK):
                ended = driver.wait(600)
        assert ended.status == 0, ended.errors
        check_gauges(server, begin, campaign)
        check_expressions(server, begin)
        until_gone(server)


def check_gauges(server: Prometheus, begin: float, campaign: str) -> None:
    """Every gauge had the values of the run, with no other tags than those of the table."""
    seen: dict[str, list[list[float]]] = {}
    for row in TABLE:
        series = server.history(f"ray_{row.name}", begin)
        for labels, _ in series:
            assert (labels["campaign"], labels["round"]) == (campaign, "0")
            ours = labels.keys() - {"__name__", "instance", "job", "otel_scope_name"}
            assert {label for label in ours if label.islower()} == {"campaign", "round", *row.tags}
        seen[row.name] = [values for _, values in series]
    opened = open_campaign(campaign, [])
    trained, scored = (
        read_manifest(opened, name, kind) for name, kind in (("train", TrainManifest), ("scores", ScoresManifest))
    )
    picked = read_manifest(opened, "selection", SelectionManifest)["counts"]["picked"]
    highest = {name: max(map(max, values)) for name, values in seen.items()}
    steps = trained["counts"]["steps"]
    expected = {
        "vaal_stage": 1, "vaal_labels": trained["counts"]["labelled"], "vaal_train_step": steps,
        "vaal_train_steps": steps, "vaal_signal_auc": trained["diagnosis"]["auc"], "vaal_picked": picked,
        "vaal_shards": scored["counts"]["shards"], "vaal_shards_committed": scored["counts"]["shards"],
        "vaal_items_scored": scored["counts"]["scored"], "vaal_items_quarantined": max(scored["errors"].values()),
    }  # fmt: skip
    assert {name: highest[name] for name in expected} == pytest.approx(expected)
    assert begin < highest["vaal_checkpoint_time_seconds"] < time.time()
    assert highest["vaal_items_per_second"] > 0 < highest["vaal_train_loss"]
    assert len(seen["vaal_items_quarantined"]) == len(scored["errors"])
    # What was measured once is there until the command ends.
    lengths = [len(seen[name][0]) for name in ("vaal_labels", "vaal_signal_auc", "vaal_picked")]
    assert lengths[0] > lengths[1] > lengths[2]
    assert seen["vaal_waiting_seconds"][0][-1] == 0 < highest["vaal_waiting_seconds"]
    for name in (
        "vaal_stage",
        "vaal_train_step",
        "vaal_train_loss",
        "vaal_checkpoint_time_seconds",
        "vaal_shards_committed",
    ):
        assert any(len(set(values)) > 1 for values in seen[name]), name


def check_expressions(server: Prometheus, begin: float) -> None:
    for expression in SHOWN:
        found = server.history(expression.replace("$campaign", ".*").replace("$round", ".*"), begin)
        assert any(values for _, values in found), expression
    for expression in ASKED:
        server.history(expression, begin)
    (group,) = server.ask("rules")["groups"]
    assert [rule["health"] for rule in group["rules"]] == ["ok"] * len(RULES)


def until_gone(server: Prometheus) -> None:
    """A command that ended leaves no gauges that an alert would take for one at work."""
    deadline = time.monotonic() + 120
    while server.now("ray_vaal_stage == 1"):
        assert time.monotonic() < deadline
        time.sleep(1)
