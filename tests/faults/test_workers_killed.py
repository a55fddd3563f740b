"""SIGKILL to the processes in which Ray runs tasks and actors, and the loss of a whole node."""

import logging
import random
import time
from pathlib import Path

import pytest

from tests.faults import law
from tests.faults.clusters import cluster
from tests.faults.conftest import Reference
from tests.faults.driver import SCORER, kill_one, running
from tests.processes import wait_until

LOG = logging.getLogger(__name__)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [SCORER, ""], ids=["scorers", "any worker"])
def test_workers_killed_at_random_moments(reference: Reference, tmp_path: Path, seed: int, kind: str) -> None:
    campaign, draw, killed = reference.copy(tmp_path / "campaign"), random.Random(seed), []
    with running("score", campaign) as driver:
        # No kill of Ray's own start, only of what it runs for a driver.
        wait_until(lambda: bool(driver.workers()), driver.ended)
        while driver.is_running and len(killed) < 5:
            time.sleep(draw.uniform(0, 4))
            if name := kill_one(driver, draw, kind):
                killed.append(f"{name.split('(')[0].strip()} with {law.num_committed(campaign)} committed")
        ended = driver.wait()
    LOG.info("%.0f s, killed: %s", ended.seconds, killed)
    assert killed
    assert ended.status == 0, ended.errors
    law.assert_law_4(campaign, reference.rows, exactly=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("num_commits", [0, 1, 20])
def test_a_node_lost_while_a_driver_runs(reference: Reference, tmp_path: Path, num_commits: int) -> None:
    campaign = reference.copy(tmp_path / "campaign")
    with cluster([1, 1]) as nodes, running("score", campaign, "--address", nodes.address) as driver:
        if num_commits:
            wait_until(lambda: law.num_committed(campaign) >= num_commits, driver.ended)
        else:
            # While the scorers start.
            time.sleep(6)
        nodes.remove_node(sorted(nodes.worker_nodes, key=str)[0], allow_graceful=False)
        assert driver.is_running
        ended = driver.wait()
    LOG.info("%.0f s", ended.seconds)
    assert ended.status == 0, ended.errors
    law.assert_law_4(campaign, reference.rows, exactly=True)
