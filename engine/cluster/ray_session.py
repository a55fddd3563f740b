"""The connection to Ray: a private local Ray unless an address is given."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from engine.errors import ConfigError, InputError, StorageError, VaalError, one_line

LOCAL = "local"
OBJECT_STORE_BYTES = 1 << 30


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """Connect to Ray for a stage, or use the existing connection.

    `address` is "local", "auto", or a cluster's host:port. The output of workers stays in Ray's log files.

    Raises InputError if no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    local: dict[str, Any] = {
        "num_cpus": max(2, os.cpu_count() or 1),
        "object_store_memory": OBJECT_STORE_BYTES,
        # Parts of it outlive a killed driver and keep a core busy.
        "include_dashboard": False,
    }
    try:
        with _silent_standard_error():
            # Without an address Ray would join a cluster that runs on this machine, so "local" is passed on.
            options = local if address == LOCAL else {}
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there: {one_line(error)}") from error
    except Exception as error:
        # Ray has no class for the usual cause: its processes did not start in time.
        raise VaalError(f"Ray did not start: {one_line(error)}; is this machine overloaded? Run it again") from error
    try:
        yield
    except (KeyboardInterrupt, StorageError):
        # During a shutdown a thread of Ray Data may end the process with status 1 before the error is reported. So Ray
        # goes down with the process, whose status is 1 for both of these errors.
        raise
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


@contextmanager
def _silent_standard_error() -> Iterator[None]:
    """Discard standard error: Ray's core prints its log level there at start, bypassing Python's loggers."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def choose_device(device: str, num_workers: int, address: str) -> str:
    """The device "cpu" or "cuda"; auto is cuda if the cluster has a GPU for each worker now.

    A cluster that starts GPU nodes on demand has none at first: with cuda, Ray waits for them.

    Raises ConfigError for cuda if this machine, which cannot grow, has fewer GPUs than workers.
    """
    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if device == "cuda" and address == LOCAL and num_gpus < num_workers:
        raise ConfigError(f"device=cuda needs {num_workers} GPUs, this machine has {num_gpus}; --set device=cpu")
    if device == "auto":
        return "cuda" if num_gpus >= num_workers else "cpu"
    return device


def count_devices(device: str) -> int:
    """The number of GPUs ("cuda") or CPUs ("cpu") in the Ray cluster now, at least 1."""
    return max(1, int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 1)))


def cpus_per_worker(num_workers: int) -> int:
    """The most CPUs that each of `num_workers` processes can have on the present nodes, at least 1."""
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    fitting = (cpus for cpus in range(max(nodes), 0, -1) if sum(node // cpus for node in nodes) >= num_workers)
    return next(fitting, 1)
