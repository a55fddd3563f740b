"""The connection to Ray: a private local Ray unless an address is given."""

import logging
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.node import Node
from ray._private.services import canonicalize_bootstrap_address
from ray._private.utils import get_num_cpus
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from engine.cluster.gauges import exported
from engine.cluster.head_watch import ANSWER_SECONDS, LostHeadError, require_head, speaks
from engine.errors import ConfigError, InputError, StorageError, VaalError, one_line
from engine.storage.location import masked

LOCAL = "local"
AUTO = "auto"
OBJECT_STORE_BYTES = 1 << 30
MIN_SCRATCH_BYTES = 16 << 20
"""With less in its folder Ray may not start, and says that it took too long."""
NO_CLUSTER = "what answers there is no Ray cluster; its own port is often 6379"
NO_TOKEN = (
    "the cluster wants a token, and none or another one is set here: export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=TOKEN, "
    "with the token that it was started with (its head may have it in ~/.ray/auth_token)"
)


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """Connect to Ray for a stage, or use the existing connection.

    `address` is "local", "auto", or a cluster's host:port. The output of workers stays in Ray's log files. A cluster
    exports the gauges of this process meanwhile; a private Ray has no dashboard, and nothing to export them.

    Raises:
        InputError: no cluster answers at the address.
        ConfigError: the address is none, or Ray cannot work in this environment.
    """
    _require_address(address)
    export = exported() if address != LOCAL else nullcontext()
    if ray.is_initialized():
        with export:
            yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with ExitStack() as after:
        _connect(address, after)
        try:
            with export, require_head(address) if address != LOCAL else nullcontext():
                yield
        except (KeyboardInterrupt, StorageError, LostHeadError):
            # During a shutdown a thread of Ray Data may end the process with status 1 before the error is reported, and
            # without a head it would wait. So Ray goes down with the process.
            after.pop_all()
            raise


def _connect(address: str, after: ExitStack) -> None:
    """Connect to Ray, until `after` ends. Raises as `ray_session`."""
    try:
        if address == LOCAL:
            after.enter_context(_private())
        else:
            _require_answer(address)
        with _silent_standard_error(), _own_signals():
            # Without an address Ray would join a cluster that runs on this machine, so "local" is passed on.
            options = _local_options() if address == LOCAL else {}
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        after.callback(ray.shutdown)
        # It prints whatever a node says, as dozens of lines when a node is lost, which are in Ray's logs too.
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
    except VaalError:
        raise
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there: {one_line(error)}") from error
    except Exception as error:
        raise _not_started(error) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what happens on SIGTERM: Ray would print the state of its threads, and end the process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and current_thread() is main_thread():
        signal.signal(signal.SIGTERM, before)


def _local_options() -> dict[str, Any]:
    return {
        "num_cpus": max(2, usable_cpus()),
        "object_store_memory": OBJECT_STORE_BYTES,
        # Parts of it outlive a killed driver and keep a core busy.
        "include_dashboard": False,
    }


@contextmanager
def _private() -> Iterator[None]:
    """Ray as it is to be where one user runs it: reached from this machine alone, and only with a token.

    The token is in the environment, which no other user can read. Ray's own would be in ~/.ray, in a file that all can
    read, and would make a later `ray start` of this user a cluster with that token.
    """
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # A process that looks every 5 s whether a cloud takes the machine away.
    ours["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    before = {name: os.environ.get(name) for name in ours}
    could_have_nodes, starts = ray_constants.ENABLE_RAY_CLUSTER, {name: getattr(Node, name) for name in _NOT_NEEDED}
    os.environ.update(ours)
    # With it Ray listens on the address of the machine, where metrics and health need no token.
    ray_constants.ENABLE_RAY_CLUSTER = False
    for name in _NOT_NEEDED:
        setattr(Node, name, _start_nothing)
    _read_again()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = could_have_nodes
        for name, start in starts.items():
            setattr(Node, name, start)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _read_again()


_NOT_NEEDED = ("start_api_server", "start_log_monitor", "start_monitor")
"""What starts processes that nobody talks to in a private Ray: a third of the CPU time of its start. The API server is
started without a dashboard, too."""


def is_private() -> bool:
    """Whether this process has started a private Ray, and is its driver."""
    started: object = Node.start_api_server
    return started is _start_nothing


def _start_nothing(node: Any, **_: Any) -> None:
    node._webui_url = None


def _read_again() -> None:
    """Ray keeps the mode and the token of the environment that it saw first."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def usable_cpus() -> int:
    """The CPUs that this process may use: a batch system gives a job some of the machine's, a container has a quota."""
    by_affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_quota = int(get_num_cpus(override_docker_cpu_warning=True))
    return max(1, min(by_affinity, by_quota))


def _require_address(address: str) -> None:
    """Raises ConfigError if it is no address, also where Ray is connected already."""
    host, _, port = address.rpartition(":")
    is_place = re.fullmatch(r"[\w.-]+|\[?[0-9a-fA-F:]+]?", host) and port.isdecimal()
    if address not in (LOCAL, AUTO) and not is_place:
        raise ConfigError(f"--address {masked(address)}: expected local, auto, or a cluster's host:port")


def _require_answer(address: str) -> None:
    """Raises InputError if nothing at the address speaks Ray's protocol."""
    # With auto, where Ray is about to look, which may be what a cluster that is no more has left behind.
    place = canonicalize_bootstrap_address(address) or "" if address == AUTO else address
    try:
        is_server = speaks(place)
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(f"--address {place}: no Ray cluster answers there: {one_line(error)}") from error
    if fault := _fault_of(place) if is_server else NO_CLUSTER:
        raise InputError(f"--address {place}: {fault}")
    # For localhost Ray takes this machine's address, and would ask there for minutes.
    used = canonicalize_bootstrap_address(place) or place
    if used != place and _fault_of(used):
        fix = f"start it with ray start --node-ip-address={used.rpartition(':')[0]}"
        raise InputError(f"--address {place}: Ray looks for this cluster at {used}, where it does not answer; {fix}")


def _fault_of(place: str) -> str:
    """Why this is no cluster that can be used; empty for one. A proxy or another server of gRPC is none, of which
    ray.init would ask for minutes."""
    found: list[str] = []

    def ask() -> None:
        with suppress(Exception):
            try:
                # Raises where there is to be a token and is none: the client would end the process.
                AuthenticationTokenLoader.instance().has_token()
                GcsClient(address=place)
                found.append("")
            except AuthenticationError:
                found.append(NO_TOKEN)

    thread = Thread(target=ask, daemon=True)
    with _silent_standard_error():
        thread.start()
        thread.join(ANSWER_SECONDS)
    return found[0] if found else NO_CLUSTER


def _not_started(error: Exception) -> VaalError:
    """Ray has no class for the usual causes."""
    text = one_line(error)
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "TMPDIR")
    folder = os.environ.get(name, "/tmp")
    if "AF_UNIX path length" in text:
        return ConfigError(f"{name}={folder}: too long a path for Ray's sockets below it; export {name}=/tmp")
    if isinstance(error, OSError) and error.strerror:
        place = error.filename or folder
        return VaalError(f"Ray did not start: {place}: {error.strerror}; fix that, or export RAY_TMPDIR=FOLDER")
    free = shutil.disk_usage(folder).free
    if free < MIN_SCRATCH_BYTES:
        return VaalError(
            f"Ray did not start: {name}={folder}: {free / 1e6:.1f} MB are free; free some, or export RAY_TMPDIR=FOLDER"
        )
    return VaalError(f"Ray did not start: {text.rstrip('.')}; is this machine overloaded? Run it again")


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


def require_cpus(option: str, num_workers: int, address: str) -> None:
    """Raises ConfigError if this machine, which cannot grow, has fewer CPUs than workers: Ray would wait for ever."""
    if address != LOCAL:
        return
    num_cpus = int(ray.cluster_resources().get("CPU", 0))
    if num_workers > num_cpus:
        raise ConfigError(
            f"{option}={num_workers} is more than the {num_cpus} CPUs of this machine; --set {option}={num_cpus}, or "
            "run it on a cluster: --address HOST:PORT"
        )


def count_devices(device: str) -> int:
    """The number of GPUs ("cuda") or CPUs ("cpu") in the Ray cluster now, at least 1."""
    if device == "cpu" and is_private():
        # It counts two where there is one, so that readers of a pool have one beside an actor.
        return usable_cpus()
    return max(1, int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 1)))


def cpus_per_worker(num_workers: int) -> int:
    """The most CPUs that each of `num_workers` processes can have on the present nodes, at least 1."""
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    fitting = (cpus for cpus in range(max(nodes), 0, -1) if sum(node // cpus for node in nodes) >= num_workers)
    return next(fitting, 1)
