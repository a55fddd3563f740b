"""Machines that a cluster does not have, or loses: it is said, it can be ended, and what comes later is used."""

import logging
import re
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import MakeCampaign
from tests.faults.clusters import add_node, cluster
from tests.faults.conftest import Reference
from tests.faults.driver import running
from tests.processes import wait_until

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
TRAINING = ("train.max_steps=300", "train.epochs=1000", "train.checkpoint_steps=20", "train.workers=2", "train.folds=1")


@pytest.mark.slow
def test_a_cluster_without_a_machine_is_waited_for_with_words(
    reference: Reference, make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    campaign, untrained = reference.copy(tmp_path / "campaign"), str(make_campaign(name="untrained").home)
    with cluster([]) as nodes:
        with running("score", campaign, "--address", nodes.address, "--set", "score.wait_seconds=3") as driver:
            ended = driver.wait()
        assert ended.status == 4
        why = r"waited 3 s for 1 worker with a CPU: the cluster has 0; add nodes, or wait longer: --set score.wait_seco"
        assert re.search(why, ended.one_error())
        with running("train", untrained, "--address", nodes.address, "--set", "device=cuda") as driver:
            seconds = driver.wait_for_words("waiting for 1 worker with a GPU: the cluster has 0; Ctrl-C ends this")
            driver.process.send_signal(signal.SIGINT)
            begin = time.monotonic()
            ended = driver.wait(10)
        LOG.info("said after %.1f s, ended %.1f s after Ctrl-C", seconds, time.monotonic() - begin)
        assert ended.status == 1
        with running("score", campaign, "--address", nodes.address) as driver:
            driver.wait_for_words("waiting for 1 worker with a CPU: the cluster has 0; Ctrl-C ends")
            add_node(nodes, 2)
            ended = driver.wait()
        assert ended.status == 0, ended.errors
        assert "raylet" not in ended.errors


@pytest.mark.slow
def test_training_that_loses_a_node_says_so_and_goes_on_with_another(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign(*TRAINING)
    with cluster([1, 1]) as nodes, running("train", str(campaign.home), "--address", nodes.address) as driver:
        checkpoints = Path(campaign.stage("train").path)
        wait_until(lambda: len(list(checkpoints.glob("checkpoint/*/checkpoint_*/checkpoint.json"))) > 1, driver.ended)
        begin = time.monotonic() - driver.began
        nodes.remove_node(sorted(nodes.worker_nodes, key=str)[0], allow_graceful=False)
        LOG.info(
            "said after %.1f s", driver.wait_for_words("waiting for 2 workers with a CPU: the cluster has 1") - begin
        )
        add_node(nodes, 1)
        LOG.info(
            "on after %.1f s", driver.wait_for_words(r"a worker was lost; going on from step \d+0 with 2 of 2") - begin
        )
        # One Ctrl-C ends training too.
        driver.process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        ended = driver.wait(10)
        LOG.info("ended %.1f s after Ctrl-C", time.monotonic() - begin)
    assert ended.status == 1
    assert "raylet" not in ended.errors
    assert ended.errors.count("going on from step") == 1
