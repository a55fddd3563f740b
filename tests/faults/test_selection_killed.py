"""SIGKILL to a selection, at any moment and any number of times: the files are those of an undisturbed one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from engine.campaign.folder import Campaign
from engine.pool.identity import draw_of
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores


def latents(shard: str, keys: list[str]) -> np.ndarray:
    """Of every tenth item those of the item before it."""
    found = np.random.default_rng(draw_of(shard, "", 0)).normal(size=(len(keys), 32))
    found[1::10] = found[0::10][: len(found[1::10])]
    return found


def scored_campaign(make_campaign: MakeCampaign, num_picks: int) -> Campaign:
    campaign = make_campaign(f"select.budget={num_picks}")
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda s, keys: np.array([draw_of(s, k, 1) / 2**64 for k in keys]), latents=latents)
    return campaign


@pytest.fixture
def scored(make_campaign: MakeCampaign) -> Campaign:
    return scored_campaign(make_campaign, 200)


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", "select", str(home), "--json", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(home: Path, *words: str) -> dict[str, object]:
    process = start(home, *words)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return dict(json.loads(output))


def selected(home: Path) -> dict[str, bytes]:
    folder = home / "rounds/000/selection"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def kill_after(home: Path, seconds: float, *words: str) -> None:
    process = start(home, *words)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kill_and_finish(scored: Campaign, tmp_path: Path, num_kills: int) -> None:
    calm, home = tmp_path / "calm", Path(scored.home.path)
    shutil.copytree(home, calm)
    begin = time.monotonic()
    expected = finish(calm)
    seconds = time.monotonic() - begin
    draw = random.Random(0)
    for _ in range(num_kills):
        kill_after(home, draw.uniform(0.3, 1) * seconds)
    found = finish(home)
    assert selected(home) == selected(calm)
    # The last kill may have come when all was done.
    passing = {"completed_at": 0, "changed": True}
    assert {**found, **passing} == {**expected, **passing}


def test_a_selection_killed_twice_is_the_undisturbed_one(scored: Campaign, tmp_path: Path) -> None:
    kill_and_finish(scored, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_selection_killed_at_twenty_random_moments(scored: Campaign, tmp_path: Path) -> None:
    kill_and_finish(scored, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_replacement_killed_at_any_moment_sends_nothing_twice(scored: Campaign, tmp_path: Path) -> None:
    home = Path(scored.home.path)
    finish(home)
    export = [sys.executable, "-m", "jobs", "export", str(home)]
    subprocess.run(export, check=True, capture_output=True)
    first = selected(home)["selection.parquet"]
    draw = random.Random(1)
    for _ in range(12):
        kill_after(home, draw.uniform(0.2, 3), "--force")
    finish(home, "--force")
    files = selected(home)
    assert files["replaced/000/selection.parquet"] == first
    import io

    import pyarrow.parquet as pq

    sent = [
        item for name, content in files.items() if name.endswith("selection.parquet")
        for item in pq.read_table(io.BytesIO(content))["item_id"].to_pylist()
    ]  # fmt: skip
    assert len(sent) == len(set(sent))
