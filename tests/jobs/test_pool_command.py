"""`vaal pool`: shards join, leave and move between rounds, and nothing else changes."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.campaign import heartbeat
from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.campaign.opening import open_campaign
from engine.pool.manifest import read_facts, read_shards
from engine.storage.location import Location
from tests.conftest import pretend_trained
from tests.growing import glob_campaign, in_next_round, names_of, new_shard, vaal
from tests.small import picked

S = [f"s-{number}.tar" for number in range(6)]


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return glob_campaign(tmp_path)


def pool_of(campaign: Campaign) -> Path:
    return Path(campaign.config.pool.root)


def file_of(campaign: Campaign) -> bytes:
    return (campaign.home / "pool/shards.parquet").read_bytes()


def test_a_new_shard_is_seen_and_joins_by_a_refresh(campaign: Campaign) -> None:
    home, before = str(campaign.home), read_shards(campaign.home)
    new = new_shard(pool_of(campaign), 3)
    pool = vaal(0, "status", home)["pool"]
    assert (pool["new"], pool["first_new"], pool["shards"]) == (1, str(new), 3)
    assert pool["note"].endswith(f"first {new}; to take them: vaal pool {home} refresh")
    assert vaal(0, "pool", home, "refresh")["joined"] == [S[3]]
    assert names_of(campaign, 0) == S[:4]
    assert read_shards(campaign.home)[:3] == before
    assert vaal(0, "status", home)["pool"]["new"] == 0
    now = file_of(campaign)
    found = vaal(0, "pool", home, "refresh")
    assert (found["joined"], found["back"], found["left"]) == ([], [], [])
    assert file_of(campaign) == now


def test_a_round_that_has_begun_keeps_its_pool(campaign: Campaign) -> None:
    home = str(campaign.home)
    pretend_trained(campaign)
    new_shard(pool_of(campaign), 3)
    assert vaal(0, "pool", home, "refresh")["round"] == 1
    assert (names_of(campaign, 0), names_of(campaign, 1)) == (S[:3], S[:4])
    pool = vaal(0, "status", home)["pool"]
    assert (pool["shards"], pool["joining"]) == (3, 1)
    in_next_round(campaign)
    assert vaal(0, "status", home)["pool"]["shards"] == 4


def test_adding_twice_changes_nothing_and_a_glob_is_looked_at_again(campaign: Campaign, tmp_path: Path) -> None:
    home, folder = str(campaign.home), tmp_path / "pool/more"
    new_shard(folder, 3)
    assert vaal(0, "pool", home, "add", f"{folder}/*.tar")["joined"] == ["more/s-3.tar"]
    now = file_of(campaign)
    assert vaal(0, "pool", home, "add", f"{folder}/s-3.tar", f"{pool_of(campaign)}/s-0.tar")["known"] == 2
    assert file_of(campaign) == now
    new_shard(folder, 4)
    assert vaal(0, "pool", home, "refresh")["joined"] == ["more/s-4.tar"]
    assert read_facts(campaign.home).version == 2
    assert list((campaign.home / "pool/changes").children()) == ["000001.parquet", "000002.parquet"]


def test_what_cannot_be_added_is_refused_in_one_line(campaign: Campaign, tmp_path: Path) -> None:
    home, now = str(campaign.home), file_of(campaign)
    assert "no shard matches" in vaal(4, "pool", home, "add", f"{tmp_path}/nowhere/*.tar")["error"]
    outside = new_shard(tmp_path / "elsewhere", 9)
    assert f"shard {outside} is not below it" in vaal(2, "pool", home, "add", str(outside))["error"]
    (pool_of(campaign) / "s-1.tar").write_bytes(outside.read_bytes() + bytes(1024))
    error = vaal(4, "pool", home, "add", f"{pool_of(campaign)}/s-1.tar")["error"]
    assert "the pool has s-1.tar with other bytes" in error
    assert "give paths" in vaal(2, "pool", home, "add")["error"]
    assert "takes no shards" in vaal(2, "pool", home, "refresh", "x")["error"]
    assert file_of(campaign) == now


def test_a_shard_that_is_gone_leaves_and_comes_back(campaign: Campaign, tmp_path: Path) -> None:
    home, labels = str(campaign.home), labelled_values(campaign.home)
    (pool_of(campaign) / S[0]).rename(tmp_path / "away.tar")
    found = vaal(0, "pool", home, "refresh")
    assert (found["left"], names_of(campaign, 0)) == ([S[0]], S[1:3])
    assert labelled_values(campaign.home) == labels
    assert vaal(0, "status", home)["pool"]["left"] == {"gone": 1, "forgotten": 0}
    (tmp_path / "away.tar").rename(pool_of(campaign) / S[0])
    assert vaal(0, "pool", home, "refresh")["back"] == [S[0]]
    assert names_of(campaign, 0) == S[:3]
    shutil.rmtree(pool_of(campaign))
    assert "all 3 shards of the pool" in vaal(4, "pool", home, "refresh")["error"]
    assert "cannot be" not in str(vaal(0, "status", home)["pool"]["fault"])


def test_what_is_forgotten_stays_away_until_it_is_added(campaign: Campaign) -> None:
    home = str(campaign.home)
    found = vaal(0, "pool", home, "forget", S[0])
    assert (found["left"], found["labels"], found["out"]) == ([S[0]], 6, 0)
    assert vaal(0, "pool", home, "refresh")["back"] == []
    now = file_of(campaign)
    assert vaal(0, "pool", home, "forget", S[0])["left"] == []
    assert file_of(campaign) == now
    assert names_of(campaign, 0) == S[1:3]
    assert "no such shard in the pool" in vaal(4, "pool", home, "forget", "s-9.tar")["error"]
    assert "no shard would be left" in vaal(4, "pool", home, "forget", f"{pool_of(campaign)}/*.tar")["error"]
    assert vaal(0, "pool", home, "add", f"{pool_of(campaign)}/{S[0]}")["back"] == [S[0]]
    assert names_of(campaign, 0) == S[:3]


def test_the_pool_is_not_changed_while_another_run_is_at_work(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 0.4)
    new, home = new_shard(pool_of(campaign), 3), str(campaign.home)
    with heartbeat.alone(campaign.home, "round"):
        held = heartbeat._held.set(frozenset())
        assert "another run (round) is at work" in vaal(5, "pool", home, "add", str(new))["error"]
        assert [row["shard"] for row in vaal(0, "pool", home)["shards"]] == S[:3]
        heartbeat._held.reset(held)
    assert names_of(campaign, 0) == S[:3]


def test_a_pool_that_moved_is_found_where_its_bytes_are(campaign: Campaign, tmp_path: Path) -> None:
    home, there = str(campaign.home), tmp_path / "there"
    shutil.copytree(pool_of(campaign), there)
    found = vaal(0, "pool", home, "move", "--root", str(there), "--check", "all")
    assert (found["images"], found["changed"]) == (6, True)
    assert found["words"] == "2 shards of which no hash is kept: the sizes alone"
    shutil.rmtree(pool_of(campaign))
    assert {Path(shard.url).parent for shard in read_shards(campaign.home)} == {there}
    new_shard(there, 3)
    # The globs are where the pool is.
    assert vaal(0, "pool", home, "refresh")["joined"] == [S[3]]
    assert not vaal(0, "pool", home, "move", "--root", str(there))["changed"]


@pytest.mark.parametrize("check", ["sample", "all"])
def test_a_pool_that_is_not_whole_does_not_move(campaign: Campaign, tmp_path: Path, check: str) -> None:
    home, there, now = str(campaign.home), tmp_path / "there", file_of(campaign)
    shutil.copytree(pool_of(campaign), there)
    move = ("pool", home, "move", "--root", str(there), "--check", check)
    (there / S[1]).unlink()
    assert f"1 of 3 shards are missing, first {there}/s-1.tar" in vaal(4, *move)["error"]
    (there / S[1]).write_bytes((there / S[2]).read_bytes() + bytes(512))
    assert f"1 of 3 shards are of another size, first {there}/s-1.tar" in vaal(4, *move)["error"]
    shutil.copy(pool_of(campaign) / S[1], there)
    content = bytearray((there / S[0]).read_bytes())
    # Within the first image, behind its header.
    content[600] ^= 1
    (there / S[0]).write_bytes(content)
    assert (
        f"1 of 6 images in 1 shard have other bytes than those that are known, first {there}/s-0.tar (item 000)"
        in (vaal(4, *move)["error"])
    )
    assert file_of(campaign) == now
    assert not (campaign.home / "rounds/000/overrides.json").exists()


def test_a_campaign_without_the_columns_of_joining_is_read(campaign: Campaign) -> None:
    import pyarrow.parquet as pq

    before, file = read_shards(campaign.home), (campaign.home / "pool/shards.parquet").path
    table = pq.read_table(file).drop_columns(["joined", "left", "why_left"]).replace_schema_metadata(None)
    pq.write_table(table, file)
    assert read_shards(campaign.home) == before
    new_shard(pool_of(campaign), 3)
    assert vaal(0, "pool", str(campaign.home), "refresh")["joined"] == [S[3]]


def test_a_pool_that_cannot_be_listed_stops_no_status(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(location: Location) -> list[Location]:
        raise location.unreadable(PermissionError(13, "Permission denied"), "listed")

    monkeypatch.setattr("engine.pool.manifest.matches_of", refuse)
    pool = vaal(0, "status", str(campaign.home))["pool"]
    assert "Permission denied" in pool["fault"]
    assert "the pool cannot be listed" in pool["note"]


KILLED = """
import os, signal, sys
from pyarrow import fs
from engine.storage import location
from typer.testing import CliRunner
from jobs.cli import app

left, write = int(sys.argv[1]), location.Location.write_file

def killed(*arguments):
    global left
    if "running.json" not in str(arguments[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return write(*arguments)

location.Location.write_file = killed
found = CliRunner().invoke(app, sys.argv[2:])
sys.exit(found.exit_code)
"""


@pytest.mark.parametrize("action", ["add", "refresh", "move"])
def test_a_change_that_is_killed_leaves_the_pool_before_or_after(
    campaign: Campaign, tmp_path: Path, action: str
) -> None:
    """SIGKILL at each write in turn; the command that is repeated completes it."""
    there = tmp_path / "there"
    new = new_shard(pool_of(campaign), 3)
    shutil.copytree(pool_of(campaign), there)
    words = {"add": ["add", str(new)], "refresh": ["refresh"], "move": ["move", "--root", str(there)]}[action]
    states, status = [], -signal.SIGKILL
    for allowed in range(6):
        home = tmp_path / str(allowed)
        shutil.copytree(campaign.home.path, home)
        command = [sys.executable, "-c", KILLED, str(allowed), "pool", str(home), *words]
        status = subprocess.run(command, check=False).returncode
        opened = open_campaign(str(home))
        states.append((names_of(opened, 0), opened.config.pool.root))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        vaal(0, "pool", str(home), *words)
        again = open_campaign(str(home))
        assert not (home / "pool/changes/000002.parquet").exists() or action == "move"
        assert (names_of(again, 0), again.config.pool.root) == _after(campaign, action, there)
    assert status == 0
    before = (S[:3], campaign.config.pool.root)
    assert [state == before for state in states] == sorted((state == before for state in states), reverse=True)
    assert states[-1] == _after(campaign, action, there)
    assert {*map(str, states)} == {str(before), str(states[-1])}


def _after(campaign: Campaign, action: str, there: Path) -> tuple[list[str], str]:
    return (S[:3], str(there)) if action == "move" else (S[:4], campaign.config.pool.root)


@pytest.mark.heavy
def test_a_move_compares_a_sample_of_what_was_scored(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picked(campaign)
    monkeypatch.setattr("engine.campaign.moving.SAMPLE_IMAGES", 9)
    shutil.copytree(pool_of(campaign), tmp_path / "there")
    found = vaal(0, "pool", str(campaign.home), "move", "--root", f"{tmp_path}/there")
    # Three of each shard.
    assert (found["images"], found["shards"]) == (9, 3)
    assert found["words"] == "the images outside of the sample; to compare all: --check all"
