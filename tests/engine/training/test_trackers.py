"""Trackers see losses while training goes on; one that is slow or fails is reported once and holds up nothing."""

import re
import time
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config.train_options import TrackerName
from engine.errors import ConfigError
from engine.storage.location import Location
from engine.training import trackers
from engine.training.metrics import LOSSES
from engine.training.trackers import About, Row, require_installed, tracked, without_secrets
from tests.servers import s3_server


def rows(first: int, last: int) -> list[Row]:
    return [{"step": step, "epoch": 0, **dict.fromkeys(LOSSES), "task": step / 10} for step in range(first, last)]


def about(folder: str | Path) -> About:
    return About("/campaigns/one", 2, "0123abcd", {"train.epochs": 3}, Location(str(folder)))


def seen(folder: Path) -> list[tuple[int, float]]:
    """What a reader of the events finds now."""
    if not (folder / "tensorboard").exists():
        return []
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    found = events.Scalars("loss/task") if "loss/task" in events.Tags()["scalars"] else []
    return [(event.step, round(event.value, 3)) for event in found]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Failing:
    """A tracker that fails at its second call."""

    def __init__(self, _: About) -> None:
        self.last, self.calls = -1, 0

    def log(self, rows: list[Row]) -> None:
        self.calls += 1
        if self.calls == 2:
            raise OSError("https://me:hunter22@tracker/api: 503\nback in an hour, key k-123456")

    def close(self) -> None: ...


class Slow(Failing):
    def log(self, rows: list[Row]) -> None:
        time.sleep(10)


@pytest.mark.heavy
def test_events_are_seen_while_training_goes_on_and_a_further_run_replaces_them(tmp_path: Path) -> None:
    lines: list[str] = []
    expected = [(step, step / 10) for step in range(30)]
    with tracked(["tensorboard"], about(tmp_path), lines.append) as put:
        put(rows(0, 10))
        wait_until(lambda: seen(tmp_path) == expected[:10])
        # A worker was lost: what it did since its checkpoint comes again.
        put(rows(0, 20))
        wait_until(lambda: seen(tmp_path) == expected[:20])
    with tracked(["tensorboard"], about(tmp_path), lines.append) as put:
        put(rows(0, 30))
    assert seen(tmp_path) == expected
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert lines == []


@pytest.mark.heavy
def test_events_go_to_an_object_store_now_and_then(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trackers, "UPLOAD_SECONDS", 0.0)
    with s3_server("campaigns") as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        folder = Location("s3://campaigns/one/train")

        def stored() -> list[tuple[int, float]]:
            (tmp_path / "tensorboard").mkdir(exist_ok=True)
            for name in (folder / "tensorboard").children():
                (tmp_path / "tensorboard" / name).write_bytes((folder / "tensorboard" / name).read_bytes())
            return seen(tmp_path)

        with tracked(["tensorboard"], about(folder.url), pytest.fail) as put:
            put(rows(0, 10))
            wait_until(lambda: len(stored()) == 10)
            put(rows(10, 20))
        assert [step for step, _ in stored()] == list(range(20))


def test_a_tracker_that_fails_is_reported_once_without_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "failing", Failing)
    monkeypatch.setenv("TRACKER_API_KEY", "k-123456")
    lines: list[str] = []
    with tracked(["failing", "tensorboard"], about(tmp_path), lines.append) as put:
        for first in range(0, 40, 10):
            put(rows(first, first + 10))
            time.sleep(0.05)
    (line,) = lines
    why = "OSError: https://***@tracker/api: 503 back in an hour, key ***"
    assert line == f"train.trackers: failing: {why}; training goes on without it"
    assert len(seen(tmp_path)) == 40


def test_a_training_that_goes_on_is_the_same_run_and_that_of_another_round_or_campaign_is_not() -> None:
    """By the same ID a tracker would take the steps of one for those that it has of the other, and drop them."""
    one = about("/x")
    assert one.run_id == about("/elsewhere")._replace(options={}).run_id
    others = (one._replace(round=3), one._replace(campaign="/campaigns/two"), one._replace(training="4567"))
    assert len({one.run_id, *(other.run_id for other in others)}) == 4


def test_a_slow_tracker_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "slow", Slow)
    monkeypatch.setattr(trackers, "END_SECONDS", 0.1)
    lines: list[str] = []
    begin = time.monotonic()
    with tracked(["slow"], about(tmp_path), lines.append) as put:
        put(rows(0, 10))
    assert time.monotonic() - begin < 5
    assert lines == ["train.trackers: slow did not take the last losses within 0 s"]


def test_the_folder_of_the_events_may_be_gone(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    lines: list[str] = []
    with tracked(["tensorboard"], about(tmp_path), lines.append) as put:
        put(rows(0, 10))
    assert len(lines) == 1
    assert lines[0].startswith("train.trackers: tensorboard: ")


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="MLflow is installed")
def test_a_tracker_that_is_not_installed_is_refused_before_training() -> None:
    require_installed(["tensorboard"])
    with pytest.raises(ConfigError, match=r"train.trackers: mlflow is not installed; pip install 'vaal\[mlflow]'"):
        require_installed(["tensorboard", "mlflow"])


def test_every_tracker_is_an_option_and_comes_with_the_package_or_as_an_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    always = {re.split(r"[^\w-]", dependency)[0] for dependency in project["dependencies"]}
    assert set(trackers.TRACKERS) == set(get_args(TrackerName))
    assert set(trackers.TRACKERS) <= always | project["optional-dependencies"].keys()


def test_an_error_shows_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter22")
    error: Any = RuntimeError("no answer\nfrom sqlite://u:p@host/db?token=1 for hunter22 " + "x" * 500)
    text = without_secrets(error)
    assert text.startswith("RuntimeError: no answer from sqlite://***@host/db?*** for *** xxx")
    assert len(text) < 350
