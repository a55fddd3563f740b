"""Runs of other machines, whose clocks differ, and object stores: who has a campaign is never decided wrongly."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.campaign import heartbeat
from engine.campaign.heartbeat import LOCK_FILE, Lock, alone, read_heartbeat
from engine.campaign.opening import open_campaign, opened
from engine.errors import BusyError, InputError
from engine.storage.location import Location
from tests.conftest import MakeCampaign
from tests.servers import s3_server

pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 0.6)


@pytest.fixture
def home(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "campaign"))


def lock_of(home: Location) -> dict[str, Any]:
    """The lock of a run that is at work now."""
    with alone(home, "score"):
        return dict(json.loads((home / LOCK_FILE).read_bytes()))


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_clocks_that_differ_by_an_hour_decide_nothing(home: Location, hours: int) -> None:
    """A run of another machine, whose clock goes otherwise: it lives as long as its sign changes."""
    left, over = {**lock_of(home), "host": "elsewhere"}, threading.Event()
    file, ahead = home / LOCK_FILE, timedelta(hours=hours)

    def beat() -> None:
        while not over.wait(0.1):
            file.write_json({**left, "at": (datetime.now(UTC) + ahead).isoformat()})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        while not file.exists():
            time.sleep(0.01)
        assert read_heartbeat(file, Lock)[1]
        with pytest.raises(BusyError, match="on elsewhere since"), alone(home, "score"):
            pass
    finally:
        over.set()
        thread.join()
    assert not read_heartbeat(file, Lock)[1]
    with alone(home, "score"):
        assert json.loads(file.read_bytes())["host"] != "elsewhere"


def test_a_run_of_long_ago_is_not_watched(home: Location) -> None:
    left = {**lock_of(home), "host": "elsewhere", "at": (datetime.now(UTC) - timedelta(days=2)).isoformat()}
    (home / LOCK_FILE).write_json(left)
    started = time.monotonic()
    assert not read_heartbeat(home / LOCK_FILE, Lock)[1]
    assert time.monotonic() - started < 0.3


def test_a_run_that_another_one_took_for_dead_ends_and_leaves_the_other_alone(home: Location) -> None:
    """As after a night's sleep of the machine: it wakes and finds that the campaign is another run's."""
    file, other = home / LOCK_FILE, {**lock_of(home), "run": "another", "host": "elsewhere"}

    def work(seconds: float) -> None:
        with alone(home, "train"):
            file.write_json(other)
            time.sleep(seconds)

    with pytest.raises(BusyError, match=r"at work in this folder, process .* on elsewhere"):
        work(30)
    assert json.loads(file.read_bytes()) == other
    file.delete()
    # In another thread nothing can be interrupted, and the end says so.
    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(work, 0.5)
        with pytest.raises(BusyError, match="on elsewhere"):
            late.result()


@pytest.mark.parametrize("seconds", [0, 30])
def test_a_run_whose_sign_is_gone_ends_as_one_that_another_run_took_over(home: Location, seconds: int) -> None:
    """As where the other run has ended before this one wakes. What fails for lack of its files is not what is wrong."""

    def work() -> None:
        with alone(home, "train"):
            (home / LOCK_FILE).delete()
            time.sleep(seconds)
            raise InputError("a file of this run: cannot be read: No such file")

    with pytest.raises(BusyError, match=r"running.json: gone while this run .* took over .*; run the same command ag"):
        work()
    assert home.children() == {}


def test_a_run_that_fails_because_another_one_took_over_says_so(home: Location) -> None:
    other = {**lock_of(home), "run": "another", "host": "elsewhere"}
    with pytest.raises(BusyError, match="on elsewhere since"), alone(home, "train"):  # noqa: PT012
        (home / LOCK_FILE).write_json(other)
        raise InputError("a file of this run: cannot be read: No such file")


def test_of_two_runs_on_a_slow_store_one_goes_on(home: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes longer to write than the other takes to look again on a disk."""
    write = Location.write_json

    def slow(self: Location, content: dict[str, Any]) -> str:
        time.sleep(0.2 if content["command"] == "first" else 0.35)
        return write(self, content)

    monkeypatch.setattr(Location, "write_json", slow)
    # No later look may find what the first one missed.
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 60.0)
    barrier, at_work = threading.Barrier(2), list[str]()

    def run(name: str) -> None:
        barrier.wait()
        with suppress(BusyError), alone(home, name):
            at_work.append(name)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, ["first", "second"]))
    assert len(at_work) == 1


def test_a_sign_of_life_is_no_result_of_a_command_that_is_refused(make_campaign: MakeCampaign) -> None:
    """Settings of a command that was refused before it made anything are not kept."""
    campaign = make_campaign()
    home = str(campaign.home)

    def refused() -> None:
        with opened(home, ["train.max_steps=7"]) as now:
            (now.stage("train") / "progress.json").write_json({})
            raise InputError("refused")

    with pytest.raises(InputError, match="refused"):
        refused()
    assert open_campaign(home).config.train.max_steps == campaign.config.train.max_steps


def test_runs_on_an_object_store_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server("locks") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        home = Location.of("s3://locks/campaign")
        with alone(home, "score"), ThreadPoolExecutor(1) as other:
            second = other.submit(lambda: alone(home, "train").__enter__())
            with pytest.raises(BusyError, match=r"another run \(score\)"):
                second.result()
        assert home.children() == {}
