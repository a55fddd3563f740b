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
    """Connect to Ray for the length of a stage, or use the connection there is.

    `address` is "local", "auto", or a cluster's host:port. What workers print stays in Ray's log files.

    Raises:
        InputError: no cluster answers at the address.
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
        # Parts of it outlive a driver that is killed, and keep a core busy.
        "include_dashboard": False,
    }
    try:
        with _silent_standard_error():
            # "local" is spelled out, for without an address Ray joins whatever cluster runs on this machine.
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **(local if address == LOCAL else {}),
            )
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there: {one_line(error)}") from error
    except Exception as error:
        # Ray has no class for this: its processes did not come up in time.
        raise VaalError(f"Ray did not start: {one_line(error)}; is this machine overloaded? Run it again") from error
    try:
        yield
    except (KeyboardInterrupt, StorageError):
        # As Ray goes down, a thread of Ray Data that misses it may end the process with status 1, before the error is
        # told. So that is left to the end of the process, whose status is 1 with either.
        raise
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


@contextmanager
def _silent_standard_error() -> Iterator[None]:
    """Ray's core announces its log level on standard error as it starts, past every Python logger."""
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
    """ "cpu" or "cuda": what `device` asks for, or for auto what the cluster has enough of now.

    A cluster that starts its GPU nodes on demand has none at first: there, ask for cuda, and Ray waits for them.

    Raises:
        ConfigError: cuda is asked for, and this machine, which cannot grow, has fewer GPUs than workers.
    """
    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if device == "cuda" and address == LOCAL and num_gpus < num_workers:
        raise ConfigError(f"device=cuda needs {num_workers} GPUs, this machine has {num_gpus}; --set device=cpu")
    if device == "auto":
        return "cuda" if num_gpus >= num_workers else "cpu"
    return device


def count_devices(device: str) -> int:
    """How many GPUs ("cuda") or CPUs ("cpu") the Ray cluster has now, at least 1."""
    return max(1, int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 1)))


def cpus_per_worker(num_workers: int) -> int:
    """The most CPUs that each of `num_workers` processes can have on the nodes there are, at least 1."""
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    fitting = (cpus for cpus in range(max(nodes), 0, -1) if sum(node // cpus for node in nodes) >= num_workers)
    return next(fitting, 1)
