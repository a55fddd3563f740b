"""Signs of life: how far a run is, for anybody who can read the campaign, and a second run that stands back."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.campaign import heartbeat
from engine.campaign.heartbeat import Heartbeat, Tally, is_living, read_heartbeat, require_alone
from engine.campaign.status import status
from engine.errors import VaalError
from engine.scoring.drafts import Committed
from engine.storage.location import Location
from tests.conftest import MakeCampaign

LEDGER = Committed("a.parquet", 10, 8, 2, "00", 99, "", {"decode/CutOff": 2})


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 0.6)


@pytest.fixture
def file(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "progress.json"))


def test_a_tally_counts_this_run_and_all_that_is_committed() -> None:
    tally = Tally(1000, 5, {"a": LEDGER})
    assert tally.progress()[:3] == (0, 1000, 0)
    assert tally.progress().seconds_left is None
    tally.add_chunk(100, 10)
    time.sleep(0.05)
    tally.add_chunk(300, 30)
    tally.add_shard(LEDGER)
    progress = tally.progress()
    assert (progress.done_bytes, progress.items, progress.quarantined) == (400, 40, 4)
    assert (progress.shards, progress.total_shards) == (2, 5)
    # Rate and time left count from the first chunk on: 30 items and 300 bytes since, 600 bytes to go.
    assert progress.seconds_left == pytest.approx(2 * 30 / progress.items_per_second, rel=0.2)
    assert tally.state()["errors"] == {"decode/CutOff": 4}
    assert tally.state()["items"] == 20


def test_a_run_shows_how_far_it_is_until_it_ends(file: Location) -> None:
    tally = Tally(1000, 5, {})
    with Heartbeat(file, tally):
        first = read_heartbeat(file)
        assert first["is_running"]
        assert (first["pid"], first["shards"]) == (os.getpid(), 0)
        tally.add_shard(LEDGER)
        time.sleep(0.4)
        assert read_heartbeat(file)["shards"] == 1
    assert not read_heartbeat(file)["is_running"]
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_a_run_that_is_alone_goes_on_at_once(file: Location) -> None:
    require_alone(file)
    with Heartbeat(file, Tally(1, 1, {})):
        pass
    require_alone(file)


def test_a_second_run_stands_back_while_the_first_lives(file: Location) -> None:
    with (
        Heartbeat(file, Tally(1, 7, {})),
        pytest.raises(VaalError, match=r"process \d+ on .* is scoring this campaign, 0 of 7"),
    ):
        require_alone(file)


def test_a_run_that_was_killed_here_is_known_to_be_dead(file: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with Heartbeat(file, Tally(1, 1, {})):
        left = read_heartbeat(file)
    file.write_json({**left, "is_running": True, "pid": ended.pid})
    assert not is_living(read_heartbeat(file))
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 60.0)
    started = time.monotonic()
    require_alone(file)
    assert time.monotonic() - started < 5


def test_a_run_of_another_machine_is_dead_when_it_shows_no_sign_of_life(file: Location) -> None:
    with Heartbeat(file, Tally(1, 1, {})):
        left = read_heartbeat(file)
    file.write_json({**left, "is_running": True, "host": "elsewhere"})
    assert is_living(read_heartbeat(file))
    started = time.monotonic()
    require_alone(file)
    assert time.monotonic() - started >= 0.6
    assert not is_living(read_heartbeat(file))


def test_a_sign_of_life_that_is_cut_off_is_none(file: Location) -> None:
    Path(file.path).write_text(json.dumps({"pid": 1})[:-1])
    assert read_heartbeat(file) is None


def test_status_shows_a_run_that_lives_and_files_where_none_does(file: Location, make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    stages = status(campaign)["rounds"][0]["stages"]
    assert stages["scores"] == {"complete": False, "committed_shards": 0, "shards": 8}
    tally = Tally(1000, 8, {"a": LEDGER, "b": LEDGER})
    with Heartbeat(campaign.stage("ledger") / "progress.json", tally):
        found = status(campaign)["rounds"][0]["stages"]["scores"]
    expected = {"is_running": True, "committed_shards": 2, "shards": 8, "items": 20, "quarantined": 4}
    assert {key: found[key] for key in expected} == expected
    assert found["errors"] == {"decode/CutOff": 4}
    # The run has ended, with fewer files than it said: what is there counts.
    found = status(campaign)["rounds"][0]["stages"]["scores"]
    assert (found["is_running"], found["committed_shards"], found["items"]) == (False, 0, 20)
