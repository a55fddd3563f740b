"""Clusters of which a node has another disk, or no credentials: a stage is refused before it starts, by name."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeCampaign, pretend_trained
from tests.faults import campaigns
from tests.faults.clusters import add_node, cluster
from tests.faults.driver import environment, run
from tests.servers import s3_server

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
SECONDS = 20.0
"""On a machine of its own; here others are at work too."""


@contextmanager
def node_with_an_empty(folder: Path, address: str) -> Iterator[None]:
    """A node of a cluster with a disk of its own, without anything, where the others have this folder."""
    ray = Path(sys.executable).parent / "ray"
    script = f"mount --make-rprivate /; mount -t tmpfs none {folder}; exec {ray} start --address={address} " + (
        "--num-cpus=2 --object-store-memory=268435456 --block"
    )
    node = subprocess.Popen(
        ["unshare", "-m", "bash", "-c", script], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        node.terminate()
        node.wait(30)


def has_nodes(nodes: object, number: int) -> bool:
    """Whether the cluster has so many nodes, by a process that connects to it."""
    code = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
    words = [sys.executable, "-c", code, nodes.address]  # type: ignore[attr-defined]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    return done.stdout.strip() == str(number)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own needs root")
def test_a_node_with_another_disk_is_named_and_nothing_starts(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    before = {path: path.stat().st_mtime_ns for path in Path(campaign.home.path).rglob("*.*")}
    home = str(campaign.home)
    with cluster([1]) as nodes:
        with node_with_an_empty(Path(home).parent, nodes.address):
            while not has_nodes(nodes, 3):
                time.sleep(1)
            ended = run("score", home, "--address", nodes.address)
            planned = run("plan", home, "--address", nodes.address, "--json")
        LOG.info("%s after %.1f s", ended.one_error(), ended.seconds)
        assert ended.status == planned.status == 4
        why = f"{home} is on this machine's disk, and node {nodes.address.partition(':')[0]} does not have it; use s3:"
        assert why in ended.one_error()
        assert why in json.loads(planned.output)["missing"][0]
        assert {path: path.stat().st_mtime_ns for path in Path(home).rglob("*.*") if path in before} == before


@pytest.mark.slow
def test_a_node_without_credentials_is_named_within_seconds(tmp_path: Path) -> None:
    pool = campaigns.make_pool(tmp_path / "pool", copies=1)
    with s3_server("bucket") as store:
        home = campaigns.make_campaign("s3://bucket/campaign", f"{pool.folder}/*.tar", pool.labels, **store)
        with cluster([1]) as nodes:
            ended = run("train", home, "--address", nodes.address, **store)
            LOG.info("%s after %.1f s", ended.one_error(), ended.seconds)
            assert ended.status == 4
            assert "s3://bucket/campaign: this machine can read it, and node " in ended.one_error()
            assert "give it the same credentials" in ended.one_error()
    assert ended.seconds < 3 * SECONDS


@pytest.mark.slow
def test_nodes_that_have_all_of_it_are_used(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    with cluster([]) as nodes:
        add_node(nodes, 2)
        planned = json.loads(run("plan", str(campaign.home), "--address", nodes.address, "--json").output)
        assert (planned["missing"], [node["faults"] for node in planned["nodes"]]) == ([], [[], []])
        assert planned["stages"]["score"]["basis"].startswith("a trial of ")
        ended = run("score", str(campaign.home), "--address", nodes.address)
        assert ended.status == 0, ended.errors
