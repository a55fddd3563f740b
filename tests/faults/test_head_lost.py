"""SIGKILL to the head of a cluster, in each stage that runs on one: the next run ends in the same files.

The driver is on the head's node, as a job's is. Ray may end it with the raylet that it talks to, in silence.
"""

import logging
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeCampaign
from tests.faults import law
from tests.faults.clusters import cluster
from tests.faults.conftest import Reference
from tests.faults.driver import Driver, Ended, run, running, started
from tests.faults.test_selection_killed import scored_campaign
from tests.faults.test_training_killed import SETTINGS, saved, weights
from tests.processes import wait_until

LOG = logging.getLogger(__name__)
SMALL_PARTS = "import engine.selection.parts as p; p.PART_ROWS = 500; from jobs.__main__ import main; main()"
"""A selection whose scores go to Ray in parts, though there are few."""


WAITING = """
import os, sys, time
from engine.cluster import head_watch
from engine.cluster.ray_session import ray_session
head_watch.ANSWER_SECONDS, head_watch.LOST_SECONDS = 1.0, 4.0
try:
    with ray_session(sys.argv[1]):
        print("begun", flush=True)
        time.sleep(100)
except head_watch.LostHeadError as error:
    print(error, flush=True)
    os._exit(error.exit_status)
"""


@pytest.mark.heavy
def test_it_is_logged_and_ends_what_waits() -> None:
    with cluster([]) as nodes, started([sys.executable, "-c", WAITING, address := str(nodes.address)], {}) as driver:
        begun = driver.wait_for_words("begun")
        nodes.remove_node(nodes.head_node, allow_graceful=False)
        ended = driver.wait(30)
    assert f"the head of the cluster at {address} does not answer; waiting for it" in ended.errors
    assert (ended.status, f"--address {address}: the head of the cluster was lost" in ended.output) == (4, True)
    assert ended.seconds - begun < 20


def lose_head(words: list[str], moment: Callable[[Driver], None]) -> Ended:
    """Run on a cluster of three nodes whose head is killed at a moment. Returns how that ended."""
    with cluster([1, 1]) as nodes, started([*words, "--address", nodes.address], {}) as driver:
        moment(driver)
        killed_at = time.monotonic()
        nodes.remove_node(nodes.head_node, allow_graceful=False)
        ended = driver.wait()
        LOG.info("ended after %.0f s: %s", time.monotonic() - killed_at, ended.error_lines)
    assert ended.status in (1, 4), ended.errors
    assert "Traceback" not in ended.errors
    return ended


def jobs(*words: str) -> list[str]:
    return [sys.executable, "-m", "jobs", *words]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_in_scoring(reference: Reference, tmp_path: Path) -> None:
    campaign = reference.copy(tmp_path / "campaign")
    lose_head(jobs("score", campaign), lambda driver: wait_until(lambda: law.num_committed(campaign) > 2, driver.ended))
    kept = law.committed(campaign)
    assert kept
    assert not law.is_complete(campaign)
    assert run("score", campaign).status == 0
    law.assert_law_4(campaign, reference.rows, exactly=True)
    assert kept.items() <= law.committed(campaign).items()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_in_training(make_campaign: MakeCampaign) -> None:
    calm, campaign = make_campaign(*SETTINGS, name="calm"), make_campaign(*SETTINGS)
    assert run("train", str(calm.home)).status == 0
    lose_head(jobs("train", str(campaign.home)), lambda driver: wait_until(lambda: bool(saved(campaign)), driver.ended))
    with running("train", str(campaign.home)) as driver:
        driver.wait_for_words("resuming from ")
        assert driver.wait().status == 0
    assert weights(campaign) == weights(calm)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_in_selection(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    calm, draw = scored_campaign(make_campaign, num_picks=200), random.Random(0)
    assert run("select", str(calm.home)).status == 0
    name = "rounds/000/selection/selection.parquet"
    for number in range(4):
        home = tmp_path / str(number)
        shutil.copytree(calm.home.path, home, ignore=shutil.ignore_patterns("selection"))
        words = [sys.executable, "-c", SMALL_PARTS, "select", str(home)]
        with cluster([1, 1]) as nodes, started([*words, "--address", nodes.address], {}) as driver:
            time.sleep(draw.uniform(2, 8))
            lost = nodes.head_node if number % 2 else sorted(nodes.worker_nodes, key=str)[0]
            nodes.remove_node(lost, allow_graceful=False)
            ended = driver.wait()
        LOG.info("ended with %d after %.0f s", ended.status, ended.seconds)
        assert ended.status in ((0, 4) if number % 2 else (0,)), ended.errors
        assert run("select", str(home)).status == 0
        assert (home / name).read_bytes() == Path(calm.home.path, name).read_bytes()
