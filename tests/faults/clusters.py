"""Rays of several nodes on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.cluster_utils
from ray._private import ray_constants

from tests.faults.driver import environment

CURRENT = Path("/tmp/ray/ray_current_cluster")
OBJECT_STORE_BYTES = 256 << 20


@contextmanager
def _for_nodes() -> Iterator[None]:
    """Start nodes as on other machines, also where this process has a private Ray, which listens on loopback alone."""
    before, could_have_nodes = dict(os.environ), ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(environment())
    ray_constants.ENABLE_RAY_CLUSTER = True
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = could_have_nodes
        os.environ.clear()
        os.environ.update(before)


def add_node(nodes: Any, num_cpus: int) -> None:
    """Add a node to a cluster."""
    with _for_nodes():
        nodes.add_node(num_cpus=num_cpus, object_store_memory=OBJECT_STORE_BYTES)


@contextmanager
def cluster(cpus: list[int]) -> Iterator[Any]:
    """A head without CPUs, and a node for each number of CPUs. Call it in the main thread.

    What starts inherits this process's environment, so that is changed as long as the cluster starts.
    """
    # Ray's own state queries would try in vain the cluster that was there before.
    CURRENT.unlink(missing_ok=True)
    CURRENT.parent.mkdir(exist_ok=True)
    head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    with _for_nodes():
        nodes = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    for count in cpus:
        add_node(nodes, count)
    try:
        yield nodes
    finally:
        nodes.shutdown()
        CURRENT.unlink(missing_ok=True)
