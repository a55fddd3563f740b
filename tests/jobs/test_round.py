"""Law 4 by the command a person types: a round that is interrupted, finished, left alone and followed by the next."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from engine.campaign.folder import Campaign
from engine.campaign.opening import open_campaign
from engine.scoring.score import score
from engine.selection.select import select
from engine.simulation.demo_pools import DemoPool, write_answers
from engine.training.plan import plan_training
from jobs.cli import app
from tests.conftest import MakeCampaign, pretend_trained
from tests.processes import wait_until

ONE_BY_ONE = "score.batch_size=1"
"""Scoring takes so long that an interrupt comes before its end."""


def vaal(*arguments: str) -> dict[str, Any]:
    """Run a command that must succeed, on the Ray that the tests share, and read its JSON object."""
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def hear_interrupts() -> None:
    """What a shell starts in the background ignores interrupts, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt_in_scoring(home: str) -> tuple[int, str]:
    """Start a round, and interrupt its driver once it has committed a shard. Exit status and standard error.

    On a busy machine a driver may have scored the rest before the signal reaches it: then it starts again.
    """
    words = [sys.executable, "-m", "jobs", "round", home, "--set", ONE_BY_ONE]
    scores = Path(home) / "rounds/000/scores"
    while True:
        driver = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
        )
        wait_until(
            lambda: bool(list(scores.glob("*.parquet"))),
            lambda driver=driver: None if driver.poll() is None else driver.communicate()[1],  # type: ignore[misc]
            seconds=300,
        )
        os.kill(driver.pid, signal.SIGINT)
        _, errors = driver.communicate(timeout=60)
        if not (scores / "manifest.json").exists():
            return driver.returncode, errors
        for folder in scores.parent.iterdir():
            if folder.is_dir() and folder.name != "train":
                shutil.rmtree(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.parquet"))}


@pytest.mark.timeout(480)
def test_a_round_survives_an_interrupt_and_is_followed_by_the_next(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path, local_ray: None
) -> None:
    campaign = make_campaign("image.size=32")
    pretend_trained(campaign)
    home = str(campaign.home)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(home, undisturbed)
    status, errors = interrupt_in_scoring(home)
    assert status == 1
    assert "interrupted; completed work is kept" in errors
    assert "Traceback" not in errors
    stages = vaal("status", home)["rounds"][0]["stages"]
    assert stages["train"]["complete"]
    assert 1 <= stages["scores"]["committed_shards"] < 8

    # The undisturbed run: the same weights, scored and selected in one go.
    calm = open_campaign(str(undisturbed), [ONE_BY_ONE])
    score(calm)
    select(calm)

    outcome = vaal("round", home)
    assert set(outcome) == {"train", "scores", "selection", "handoff", "report"}
    first = Path(home) / "rounds/000"
    for stage in ("scores", "selection"):
        assert files(first / stage) == files(undisturbed / "rounds/000" / stage)
    check_that_a_second_call_does_nothing(home, outcome)
    check_the_next_round(home, pool, first)


def check_that_a_second_call_does_nothing(home: str, outcome: dict[str, Any]) -> None:
    times = {path: path.stat().st_mtime_ns for path in Path(home).rglob("*") if path.is_file()}
    assert outcome["handoff"]["sent_now"]
    outcome["handoff"]["sent_now"] = False
    assert vaal("round", home) == {name: {**manifest, "changed": False} for name, manifest in outcome.items()}
    assert {path: path.stat().st_mtime_ns for path in Path(home).rglob("*") if path.is_file()} == times


def check_the_next_round(home: str, pool: DemoPool, first: Path) -> None:
    picks = pq.read_table(first / "selection/selection.parquet").to_pylist()
    answers = first / "answers.csv"
    write_answers(picks, pool.oracle, answers)
    none = ("blank", "replaced", "taken_away", "out", "changed", "corrected", "versions", "skipped", "disputed")
    rest = {**dict.fromkeys(none, 0), "new_classes": [], "refused": [], "answers": 100}
    first_time = {"new": 100, "repeated": 0, "known": 0, "votes": 100, "is_closed": True, "rounds": [0], **rest}
    assert vaal("ingest", home, str(answers)) | {"new_classes": []} == first_time
    again = {"new": 0, "repeated": 100, "known": 100, "votes": 0, "is_closed": False, "rounds": []}
    assert vaal("ingest", home, str(answers)) == again | rest
    state = vaal("status", home)
    assert (state["round"], state["labels"]["total"], state["labels"]["by_round"]) == (1, 300, {"0": 100})

    campaign: Campaign = open_campaign(home, [])
    assert campaign.round == 1
    assert len(plan_training(campaign).pool.labelled) == 300
    pretend_trained(campaign)
    vaal("round", home, "--set", "select.budget=40", "--set", "score.batch_size=256")
    manifest = json.loads((campaign.stage("selection") / "manifest.json").read_bytes())
    assert manifest["config"]["select"]["budget"] == 40
    second = pq.read_table(campaign.stage("selection").path + "/selection.parquet").to_pylist()
    assert len(second) == 40
    labelled = set(picked(picks))
    with pool.labels.open() as file:
        labelled |= {(row["shard"], row["key"]) for row in csv.DictReader(file)}
    assert not set(picked(second)) & labelled
    assert len(labelled) == 300


def picked(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["shard"], row["key"]) for row in rows]
