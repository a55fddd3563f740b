"""Rays of several nodes on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.cluster_utils
from ray._private.services import node_ip_address_from_perspective

from tests.faults.driver import environment

CURRENT = Path("/tmp/ray/ray_current_cluster")
OBJECT_STORE_BYTES = 256 << 20


@contextmanager
def _for_nodes() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _node() -> dict[str, Any]:
    """What every node has: this machine's address too, where this process has a private Ray on the loopback device."""
    return {"object_store_memory": OBJECT_STORE_BYTES, "node_ip_address": node_ip_address_from_perspective()}


def add_node(nodes: Any, num_cpus: int) -> None:
    """Add a node to a cluster."""
    with _for_nodes():
        nodes.add_node(num_cpus=num_cpus, **_node())


@contextmanager
def cluster(cpus: list[int]) -> Iterator[Any]:
    """A head without CPUs, and a node for each number of CPUs. Call it in the main thread.

    What starts inherits this process's environment, so that is changed as long as the cluster starts.
    """
    # Ray's own state queries would try in vain the cluster that was there before.
    CURRENT.unlink(missing_ok=True)
    CURRENT.parent.mkdir(exist_ok=True)
    head = {"num_cpus": 0, "include_dashboard": False, **_node()}
    with _for_nodes():
        nodes = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    for count in cpus:
        add_node(nodes, count)
    try:
        yield nodes
    finally:
        nodes.shutdown()
        CURRENT.unlink(missing_ok=True)
