"""`vaal pack` as a process, on a real Ray: killed again and again, and on a disk that fills."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.mounts import MountError, small_file_system
from tests.packed import contents_of, every_member, fill

KILLS = 6


def command(source: Path, pool: Path, *extra: str) -> list[str]:
    return [sys.executable, "-m", "jobs", "pack", str(source), str(pool), "--classes-from-folders", *extra]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_runs_on_ray_end_as_an_undisturbed_one(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", [f"{n % 3}/{n:03d}.png" for n in range(300)])
    begun = time.monotonic()
    subprocess.run(command(tmp_path / "in", tmp_path / "whole", "--shard-images", "5"), check=True)
    seconds, rng = time.monotonic() - begun, random.Random(0)
    for _ in range(KILLS):
        words = command(tmp_path / "in", tmp_path / "killed", "--shard-images", "5")
        process = subprocess.Popen(words, start_new_session=True)
        try:
            process.wait(rng.uniform(0.4, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    subprocess.run(command(tmp_path / "in", tmp_path / "killed", "--shard-images", "5"), check=True)
    assert contents_of(tmp_path / "killed") == contents_of(tmp_path / "whole")
    assert every_member(tmp_path / "killed") == made


@pytest.mark.slow
def test_a_disk_that_fills_ends_the_run_and_with_more_room_it_goes_on(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", [f"a/{n:04d}.png" for n in range(1200)])
    try:
        with small_file_system(tmp_path / "disk", 600_000) as mount:
            words = [*mount.enter, *command(tmp_path / "in", mount.point / "pool", "--shard-images", "400")]
            full = subprocess.run(words, capture_output=True, text=True, check=False)
            assert full.returncode == 1, full.stderr
            lines = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
            assert len(lines) == 1
            assert "cannot be written: No space left on device; fix that and run again" in lines[0]
            mount.change("size=50m")
            subprocess.run(words, check=True)
            assert every_member(mount.seen_from_outside / "pool") == made
    except MountError as error:
        pytest.skip(str(error))
