"""SIGKILL to the driver, at any moment and any number of times."""

import logging
import random
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults import law
from tests.faults.campaigns import finish
from tests.faults.conftest import Reference, what_stays
from tests.faults.driver import SCORER, Driver, kill_one, run, running
from tests.processes import wait_until

LOG = logging.getLogger(__name__)
NUM_KILLS = 20


def modified(campaign: str) -> dict[str, int]:
    """When each scores file was written."""
    folder = law.stage(campaign, "scores")
    return {name: (folder / name).stat().st_mtime_ns for name in law.committed(campaign)}


def judge(campaign: str, reference: Reference, kept: dict[str, str], times: dict[str, int]) -> None:
    """Law 4, and what was committed before the last run was not written again by it."""
    law.assert_law_4(campaign, reference.rows, exactly=True)
    assert kept.items() <= law.committed(campaign).items()
    assert times.items() <= modified(campaign).items()


@pytest.mark.slow
def test_a_driver_killed_after_it_has_committed_and_a_scorer_of_the_run_that_follows(
    reference: Reference, start_to_kill: Callable[[str, str], Driver], tmp_path: Path
) -> None:
    campaign = reference.copy(tmp_path / "campaign")
    driver = start_to_kill("round", campaign)
    wait_until(lambda: law.num_committed(campaign) > 0, driver.ended)
    driver.kill()
    assert not law.is_complete(campaign)
    law.assert_nothing_half_written(campaign)
    kept, times = law.committed(campaign), modified(campaign)
    with running("score", campaign) as second:
        wait_until(lambda: law.num_committed(campaign) > len(kept), second.ended)
        assert kill_one(second, random.Random(0), SCORER)
        ended = second.wait()
    assert ended.status == 0, ended.errors
    judge(campaign, reference, kept, times)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_driver_killed_at_twenty_random_moments(reference: Reference, tmp_path: Path) -> None:
    undisturbed = run("score", reference.copy(tmp_path / "undisturbed"))
    kill_and_restart(reference, tmp_path, lambda draw: draw.uniform(0, 1.1 * undisturbed.seconds))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_driver_killed_again_and_again_while_it_commits(reference: Reference, tmp_path: Path) -> None:
    # Most of a short run is start-up: these kills fall a few shards after the first commit of each run.
    kill_and_restart(reference, tmp_path, lambda draw: draw.randrange(6))


def kill_and_restart(reference: Reference, folder: Path, moment: Callable[[random.Random], float]) -> None:
    """Twenty kills, each at a moment: seconds after the start, or a whole number of commits after the first.

    Each is followed by the next run at once, whatever is left of the one before. A campaign that is complete before
    is judged, and the next one takes the kills that are left.
    """
    draw, number = random.Random(0), 0
    killed: list[Driver] = []
    campaign = reference.copy(folder / "0")
    with ExitStack() as stack:
        while len(killed) < NUM_KILLS:
            before, at = law.num_committed(campaign), moment(draw)
            driver = stack.enter_context(running("score", campaign))
            if wait_for(driver, campaign, before, at):
                # An operator kills the group, a machine without memory the driver alone.
                driver.kill(alone=len(killed) % 2 == 1)
                killed.append(driver)
                law.assert_nothing_half_written(campaign)
                LOG.info("kill %s at %s: %s -> %s", len(killed), at, before, law.num_committed(campaign))
                continue
            ended = driver.wait()
            assert ended.status == 0, ended.errors
            law.assert_law_4(campaign, reference.rows, exactly=True)
            number += 1
            campaign = reference.copy(folder / str(number))
        kept, times = law.committed(campaign), modified(campaign)
        finish(campaign)
        judge(campaign, reference, kept, times)
        assert not [name for driver in killed for name in what_stays(driver)]


def wait_for(driver: Driver, campaign: str, before: int, at: float) -> bool:
    """Whether the moment comes while the driver runs."""
    try:
        if isinstance(at, float):
            driver.wait(at)
    except subprocess.TimeoutExpired:
        return True
    while driver.is_running and not law.num_committed(campaign) > before + at:
        time.sleep(0.01)
    return driver.is_running
