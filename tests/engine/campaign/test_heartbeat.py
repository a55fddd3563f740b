"""Signs of life: how far a run is, for anybody who can read the campaign, and a second run that exits."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.campaign import heartbeat
from engine.campaign.heartbeat import LOCK_FILE, Beat, Lock, alone, beating, read_heartbeat
from engine.campaign.status import status
from engine.errors import BusyError, ConfigError, InputError
from engine.scoring.tally import Tally
from engine.storage.location import Location
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import table_of
from engine.training.board import Steps
from jobs.cli import app
from tests.conftest import MakeCampaign

# Two runs that begin at the same moment differ by the time in which both look again, which fast tests skip.
pytestmark = pytest.mark.heavy

LEDGER = ShardRecord("a", "a.parquet", 10, 8, 2, "00", 99, "", {"decode/CutOff": 2})


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 0.6)


@pytest.fixture
def home(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "campaign"))


@pytest.fixture
def file(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "progress.json"))


def test_a_tally_counts_this_run_and_all_that_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally(1000, 5, table_of([LEDGER]))
    assert tally.in_words() == (0, "0 items read, 1 of 5 shards written, 2 bad")
    assert tally.state()["seconds_left"] is None
    tally.add_chunk(100, 10)
    time.sleep(0.05)
    tally.add_chunk(300, 30)
    tally.add_shard(LEDGER)
    # Too soon for a speed.
    assert tally.in_words()[1] == "40 items read, 2 of 5 shards written, 4 bad"
    monkeypatch.setattr("engine.scoring.tally.FIRST_SECONDS", 0.0)
    share, words = tally.in_words()
    assert share == 0.4
    assert re.fullmatch(r"40 items read, \d+ items/s, 2 of 5 shards written, 4 bad", words)
    # Rate and time left count from the first chunk on: 30 items and 300 bytes since, 600 bytes to go.
    rate, left = tally._speed()
    assert left == pytest.approx(2 * 30 / rate, rel=0.2)
    assert tally.state()["errors"] == {"decode/CutOff": 4}
    assert tally.state()["items"] == 20


def test_a_run_shows_how_far_it_is_until_it_ends(file: Location) -> None:
    before, tally = set(threading.enumerate()), Tally(1000, 5, table_of([]))
    with beating(file, tally.state):
        (thread,) = set(threading.enumerate()) - before
        first, is_living = read_heartbeat(file, Beat)
        assert is_living
        assert first["is_running"]
        assert (first["pid"], first["shards"]) == (os.getpid(), 0)
        tally.add_shard(LEDGER)
        time.sleep(0.4)
        assert read_heartbeat(file, Beat)[0]["shards"] == 1
    assert not read_heartbeat(file, Beat)[0]["is_running"]
    assert not thread.is_alive()


def lock_of(home: Location) -> dict[str, Any]:
    """The lock of a run that is at work now."""
    with alone(home, "score"):
        return dict(json.loads((home / LOCK_FILE).read_bytes()))


def test_a_run_that_is_alone_starts_at_once_and_leaves_nothing(home: Location) -> None:
    started = time.monotonic()
    for _ in range(2):
        with alone(home, "train"), alone(home, "score"):
            assert (home / LOCK_FILE).exists()
        assert home.children() == {}
    assert time.monotonic() - started < 0.5


def test_a_second_run_is_refused_while_the_first_lives_also_in_a_stage_of_its_round(home: Location) -> None:
    with alone(home, "round"), alone(home, "train"), ThreadPoolExecutor(1) as other:
        second = other.submit(lambda: alone(home, "ingest").__enter__())
        with pytest.raises(BusyError, match=rf"running.json: another run \(round\) is at work .* {os.getpid()} on "):
            second.result()
    assert BusyError.exit_status == 5
    assert home.children() == {}


def test_of_runs_that_start_at_the_same_moment_one_goes_on(home: Location) -> None:
    barrier = threading.Barrier(4)

    def run(number: int) -> bool:
        barrier.wait()
        try:
            with alone(home, f"{number}"):
                time.sleep(0.3)
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(run, range(4))) == 1
    assert home.children() == {}


@pytest.mark.parametrize("lateness", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.99])
def test_a_run_whose_beats_come_late_or_are_lost_once_is_never_taken_for_dead(
    home: Location, monkeypatch: pytest.MonkeyPatch, phase: float, lateness: float
) -> None:
    """`phase` and `lateness` are in beats: where between two beats the second run starts, how late the next beat is."""
    monkeypatch.undo()
    left = {**lock_of(home), "host": "elsewhere"}
    now, next_beat = 0.0, (1 - phase + lateness) * heartbeat.BEAT_SECONDS

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now >= next_beat:
            (home / LOCK_FILE).write_json({**left, "at": f"{datetime.fromtimestamp(now, UTC).isoformat()}"})

    (home / LOCK_FILE).write_json(left)
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    with pytest.raises(BusyError, match="on elsewhere since"), alone(home, "score"):
        pass
    now, next_beat = 0.0, (1 - phase + lateness) * heartbeat.BEAT_SECONDS
    (home / LOCK_FILE).write_json(left)
    assert read_heartbeat(home / LOCK_FILE, Lock)[1]


def test_a_run_that_was_killed_here_is_known_to_be_dead(home: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = {**lock_of(home), "pid": ended.pid}
    (home / LOCK_FILE).write_json(left)
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 60.0)
    assert not read_heartbeat(home / LOCK_FILE, Lock)[1]
    started = time.monotonic()
    with alone(home, "score"):
        assert time.monotonic() - started < 5


@pytest.mark.heavy
@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"machine": "the same boot, another container"}])
def test_a_run_of_another_machine_or_container_is_dead_when_it_shows_no_sign_of_life(
    home: Location, other: dict[str, str]
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = {**lock_of(home), "pid": ended.pid, **other}
    (home / LOCK_FILE).write_json(left)
    started = time.monotonic()
    assert not read_heartbeat(home / LOCK_FILE, Lock)[1]
    assert time.monotonic() - started >= 0.6
    with alone(home, "score"):
        assert time.monotonic() - started >= 1.2


@pytest.mark.heavy
def test_every_command_that_writes_is_refused_while_another_run_is_at_work(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    campaign = make_campaign()
    answers, home = tmp_path / "answers.csv", str(campaign.home)
    answers.write_text("item_id,label\n")
    before = {path for path in Path(home).rglob("*") if path.is_file()}
    lock = {**lock_of(campaign.home), "host": "elsewhere"}
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.05):
            (campaign.home / LOCK_FILE).write_json({**lock, "at": datetime.now(UTC).isoformat()})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        for words in (
            *([command] for command in ("train", "score", "select", "export", "report", "round")),
            ["train", "--set", "train.max_steps=7"],
            ["ingest", str(answers)],
        ):
            command, *options = words
            result = CliRunner().invoke(app, [command, home, *options])
            assert (result.exit_code, result.stderr.count("error: ")) == (5, 1), result.output
            assert "another run (score) is at work in this folder" in result.stderr
        assert CliRunner().invoke(app, ["status", home]).exit_code == 0
    finally:
        over.set()
        thread.join()
    assert {path for path in Path(home).rglob("*") if path.is_file()} - before == {Path(home) / LOCK_FILE}


def test_a_sign_of_life_that_is_damaged_or_foreign_is_named(file: Location) -> None:
    Path(file.path).write_text(json.dumps({"pid": 1})[:-1])
    with pytest.raises(InputError, match=r"progress.json: damaged, not valid JSON"):
        read_heartbeat(file, Beat)
    Path(file.path).write_text(json.dumps({"pid": 1}))
    with pytest.raises(ConfigError, match=r"progress.json: shards: missing"):
        read_heartbeat(file, Beat)


def test_status_shows_a_run_that_lives_and_files_where_none_does(file: Location, make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    stages = status(campaign)["rounds"][0]["stages"]
    assert stages["scores"] == {"complete": False, "committed_shards": 0, "shards": 8}
    tally = Tally(1000, 8, table_of([LEDGER, LEDGER]))
    with beating(campaign.stage("ledger") / "progress.json", tally.state):
        found = status(campaign)["rounds"][0]["stages"]["scores"]
    expected = {"is_running": True, "committed_shards": 2, "shards": 8, "items": 20, "quarantined": 4}
    assert {key: found[key] for key in expected} == expected
    assert found["errors"] == {"decode/CutOff": 4}
    # The run has ended, with fewer files than it said: what is there counts.
    found = status(campaign)["rounds"][0]["stages"]["scores"]
    assert (found["is_running"], found["committed_shards"], found["items"]) == (False, 0, 20)


def test_status_shows_training_as_it_shows_scoring(make_campaign: MakeCampaign) -> None:
    campaign, steps = make_campaign(), Steps(40)
    file, home = campaign.stage("train") / "progress.json", str(campaign.home)
    steps.reach(10)
    time.sleep(0.02)
    steps.reach(20)
    left = steps.state()["seconds_left"]
    with beating(file, steps.state):
        found = status(campaign)["rounds"][0]["stages"]["train"]
        shown = CliRunner().invoke(app, ["status", home]).stdout
    expected = {"complete": False, "is_running": True, "steps": 20, "total_steps": 40, "seconds_left": left}
    assert {key: found[key] for key in expected} == expected
    assert re.search(r"training +step 20 of 40, 0:00:00 left, on ", shown)
    shown = CliRunner().invoke(app, ["status", home]).stdout
    assert re.search(r"training +step 20 of 40; not running, last sign of life 20", shown)
    # What it cost does not count the steps of an earlier run.
    assert steps.effort(10, 2) | {"seconds": 0} == {"seconds": 0, "done": 30, "workers": 2}
