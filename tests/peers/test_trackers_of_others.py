"""MLflow and W&B themselves take what training gives them, and what they cannot take ends nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.peers.environments import environment, needs_peer

pytestmark = [needs_peer("trackers"), pytest.mark.heavy]
PROGRAM = Path(__file__).parent / "trackers/follow.py"
SECRET = "hunter22-0123456789"


def followed(folder: Path, *names: str, **variables: str) -> tuple[dict[str, Any], str]:
    """What the trackers have of a training, and all that was printed."""
    (packages,) = environment("trackers").parents[1].glob("lib/python*/site-packages")
    words = [sys.executable, PROGRAM, packages, folder, *names]
    known = {"HOME": str(folder), "PYTHONPATH": str(PROGRAM.parents[3]), **variables}
    ended = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=os.environ | known, timeout=120)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1]), ended.stdout + ended.stderr


def test_mlflow_has_every_step_once_also_of_a_training_that_goes_on(tmp_path: Path) -> None:
    found, _ = followed(tmp_path, "mlflow", MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")
    assert found["lines"] == []
    assert found["mlflow"] == {
        "name": "/campaigns/one round 002",
        "status": "FINISHED",
        "params": {"train.epochs": "3"},
        "points": [[step, step / 10] for step in range(30)],
    }


def test_wandb_offline_has_every_step(tmp_path: Path) -> None:
    found, printed = followed(tmp_path, "wandb", WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    assert found["lines"] == []
    runs = sorted(tmp_path.glob("wandb/offline-run-*-vaal-0123abcd/run-vaal-0123abcd.wandb"))
    assert len(runs) == 2
    for run, steps in zip(runs, (20, 30), strict=True):
        content = run.read_bytes()
        assert content.count(b"loss/task") >= steps
    assert "wandb:" not in printed


def test_a_tracker_that_nobody_logged_into_or_reaches_is_reported_once(tmp_path: Path) -> None:
    server = f"http://me:{SECRET}@127.0.0.1:9/"
    nowhere = {"MLFLOW_TRACKING_URI": server, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "WANDB_MODE": "online"}
    found, printed = followed(tmp_path, "mlflow", "wandb", "tensorboard", **nowhere)
    first, second = (sorted(found["lines"][begin : begin + 2]) for begin in (0, 2))
    assert first == second
    assert first[0].startswith("train.trackers: mlflow: MlflowException: ")
    assert first[1] == (
        "train.trackers: wandb: UsageError: No API key configured. Use `wandb login` to log in.; training goes on "
        "without it"
    )
    assert SECRET not in printed
    assert list(tmp_path.glob("tensorboard/events*"))
