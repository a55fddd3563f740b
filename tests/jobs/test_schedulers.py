"""What a scheduler asks of the commands: part of a round, whether anything was done, waits, and errors as JSON."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.campaign.folder import Campaign
from engine.campaign.heartbeat import LOCK_FILE, alone
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.opening import open_campaign
from engine.campaign.stages import STAGES
from engine.selection.select import select
from jobs import status as page
from jobs.cli import PAGES, app
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores

TINY = ("train.max_steps=4", "train.folds=2", "select.budget=10", "select.diversity=none", "device=cpu")


def vaal(*words: str, status: int = 0) -> dict[str, Any]:
    """The JSON object of a command."""
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == status, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def scored(campaign: Campaign) -> Campaign:
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.zeros(len(keys), np.float32))
    return campaign


@pytest.mark.heavy
def test_a_round_stops_after_a_stage_and_says_what_it_did(make_campaign: MakeCampaign, local_ray: None) -> None:
    campaign = make_campaign("select.budget=10")
    pretend_trained(campaign)
    home = str(campaign.home)
    first = vaal("round", home, "--until", "select")
    assert {name: manifest["changed"] for name, manifest in first.items()} == {
        "train": False,
        "scores": True,
        "selection": True,
    }
    assert not (campaign.stage("handed_out")).folders()
    again = CliRunner().invoke(app, ["round", home, "--until", "select"])
    assert "Round 000 ends here, after select; nothing was done" in again.stdout
    assert f"vaal round {home}" in again.stdout
    rest = vaal("round", home)
    assert [manifest["changed"] for manifest in rest.values()] == [False, False, False, True, True]
    nothing = vaal("round", home)
    assert not any(manifest["changed"] for manifest in nothing.values())
    shown = CliRunner().invoke(app, ["round", home])
    assert (shown.exit_code, "Round 000: complete already, nothing was done" in shown.stdout) == (0, True)


def test_a_single_stage_says_whether_it_did_anything(make_campaign: MakeCampaign) -> None:
    home = str(scored(make_campaign()).home)
    assert [vaal("select", home)["changed"] for _ in range(2)] == [True, False]
    assert vaal("select", home, "--set", "select.budget=5")["changed"]
    assert [vaal("export", home)["changed"] for _ in range(2)] == [True, False]


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_networks_are_used_again_where_no_label_is_new(make_campaign: MakeCampaign, local_ray: None) -> None:
    campaign = make_campaign(*TINY)
    home = str(campaign.home)
    assert vaal("train", home)["changed"]
    fabricate_scores(campaign, lambda _, keys: np.zeros(len(keys), np.float32))
    select(campaign)
    picks = vaal("export", home)
    skipped = Path(home).parent / "answers.csv"
    rows = (campaign.stage("selection") / "selection.parquet").read_table()["item_id"].to_pylist()
    skipped.write_text("item_id,label,skipped\n" + "".join(f"{row},,true\n" for row in rows))
    assert vaal("ingest", home, str(skipped))["skipped"] == picks["counts"]["images"] == 10
    assert vaal("status", home)["round"] == 1
    again = CliRunner().invoke(app, ["train", home])
    assert again.exit_code == 0, again.output
    words = "no label is new since round 000: its networks are used again, and not trained again"
    assert words in " ".join(again.stderr.split())
    now = open_campaign(home)
    first, second = (read_manifest(at, "train", TrainManifest) for at in (campaign, now))
    assert second["files"] == first["files"]
    assert (second["reused_round"], second["fold_round"], second["round"]) == (0, 0, 1)
    assert "effort" in first
    assert "effort" not in second
    # Another option of training, or a new label, and they are trained.
    (now.stage("train") / "manifest.json").delete()
    assert "reused_round" not in vaal("train", home, "--set", "train.seed=1")


def test_status_waits_for_a_stage(make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LOOK_SECONDS", 0.02)
    campaign = scored(make_campaign())
    thread = threading.Timer(0.3, lambda: select(campaign))
    began = time.monotonic()
    thread.start()
    done = CliRunner().invoke(app, ["status", str(campaign.home), "--wait", "select", "--json"])
    thread.join()
    assert time.monotonic() - began >= 0.3
    assert json.loads(done.stdout)["rounds"][0]["stages"]["selection"]["complete"]
    assert "waiting until select of round 000 is complete; Ctrl-C ends this" in done.stderr


@pytest.mark.heavy
@pytest.mark.parametrize("command", [stage.command for stage in STAGES])
def test_a_second_run_ends_with_status_5_whichever_stage_the_first_is_in(
    command: str, make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is another process, in this stage; the second is any command that writes."""
    monkeypatch.setattr("engine.campaign.heartbeat.PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr("engine.campaign.heartbeat.BEAT_SECONDS", 0.1)
    campaign = scored(make_campaign())
    if command in ("export", "report"):
        select(campaign)
    home, gate = str(campaign.home), Path(campaign.home.path).parent / "gate"
    code = (
        "import pkgutil, sys, time, pathlib\n"
        "from engine.campaign import heartbeat\n"
        "from engine.campaign.opening import open_campaign\n"
        "from engine.campaign.stages import run_stage, stage_of\n"
        "heartbeat.BEAT_SECONDS = 0.1\n"
        "command, home, gate = sys.argv[1:]\n"
        "def hold(*_, **__):\n"
        "    pathlib.Path(gate).touch()\n"
        "    time.sleep(60)\n"
        "module = __import__(stage_of(command).module, fromlist=['x'])\n"
        "setattr(module, command, hold)\n"
        "run_stage(command, open_campaign(home))\n"
    )
    first = subprocess.Popen([sys.executable, "-c", code, command, home, str(gate)])
    try:
        while not gate.exists():
            assert first.poll() is None
            time.sleep(0.02)
        for second in (*(stage.command for stage in STAGES), "round"):
            found = vaal(second, home, status=5)
            assert found["exit_status"] == 5
            assert f"another run ({command}) is at work in this folder, process {first.pid}" in found["error"]
        assert vaal("status", home)["round"] == 0
    finally:
        first.kill()
        first.wait()
    # Dead, it is no obstacle.
    with alone(campaign.home, "next"):
        assert json.loads((campaign.home / LOCK_FILE).read_bytes())["command"] == "next"


WORDS = {
    "dataset": ["cifar10", "/nowhere", "/nowhere/sets"],
    "demo": ["--folder", "/proc/nowhere"],
    "init": ["/nowhere", "--pool", "/nowhere/*.tar", "--labels", "/nowhere.csv"],
    "ingest": ["/nowhere", "/nowhere.csv"],
    "labels": ["/nowhere", "list"],
    "pack": ["/nowhere", "/nowhere"],
    "simulate": ["/nowhere.toml", "--out", "/nowhere"],
    "submit": ["status", "/nowhere", "--address", "http://127.0.0.1:1"],
}
"""What a command is called with so that it fails; the others with a folder that is no campaign."""


@pytest.mark.parametrize("command", PAGES)
def test_every_command_fails_with_one_json_object(command: str) -> None:
    done = CliRunner().invoke(app, [command, *WORDS.get(command, ["/nowhere"]), "--json"])
    assert done.exit_code != 0
    found = json.loads(done.stdout)
    assert set(found) == {"error", "exit_status"}
    assert found["exit_status"] == done.exit_code
    assert f"error: {found['error']}" in done.stderr.replace("\x1b[0m", "")


@pytest.mark.heavy
@pytest.mark.parametrize("words", [["round"], ["nonsense"], ["round", "/nowhere", "--until", "never"]])
def test_a_mistake_of_the_command_line_is_one_json_object(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "jobs", *words, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert found["exit_status"] == 2
    assert found["error"]
