"""Waiting for machines, with words: what is wanted, what the cluster has, and an end that the user sets."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.autoscaler.sdk import request_resources
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

from engine.cluster.gauges import Measure
from engine.cluster.head_watch import ANSWER_SECONDS
from engine.cluster.interrupting import repeated
from engine.cluster.ray_session import LOCAL
from engine.config.texts import plural
from engine.errors import ConfigError, InputError

LOOK_SECONDS = 1.0
WORD_SECONDS = 30.0
"""Between two lines about the same wait."""
Log = Callable[[str], None]


class Need(NamedTuple):
    """Processes that a stage cannot do without: how many, the GPUs of each, 0 for none, and the seconds for which they
    are waited for, 0 for ever. `section` is that of the options that say so."""

    section: str
    num: int
    gpus: float
    seconds: float

    @property
    def resources(self) -> dict[str, float]:
        """What each of them takes of a node."""
        return {"CPU": 1.0, **({"GPU": self.gpus} if self.gpus else {})}

    @property
    def words(self) -> str:
        return f"{plural(self.num, 'worker')} with a {'GPU' if self.gpus else 'CPU'}"


class Watch:
    """Looks whether a cluster has what is needed, and says so where it has not."""

    def __init__(
        self, need: Need, address: str, log: Log, measure: Measure, has_begun: Callable[[], bool] = lambda: True
    ) -> None:
        self._need, self._address, self._log, self._has_begun = need, address, log, has_begun
        self._measure = measure
        self._since, self._said_at, self._has_asked = time.monotonic(), -WORD_SECONDS, False

    def look(self) -> bool:
        """Whether the processes are there, or can be. Where they cannot, it is said every `WORD_SECONDS`, and the
        autoscaler is asked for them.

        Raises ConfigError if they never can be, InputError if they were waited for long enough.
        """
        now, there = time.monotonic(), room(self._need)
        is_lacking = there < self._need.num
        if not is_lacking and self._has_begun():
            self._since = now
        if not is_lacking and now - self._since < WORD_SECONDS:
            self.end()
            return True
        why = f"the cluster has {there}" + ("" if is_lacking else ", and others use them")
        waited, seconds = now - self._since, self._need.seconds
        self._measure("vaal_waiting_seconds", waited)
        if is_lacking:
            self._ask(there)
        if now - self._said_at >= WORD_SECONDS:
            self._said_at = now
            self._log(f"waiting for {self._need.words}: {why}; Ctrl-C ends this")
        if seconds and waited >= seconds:
            option = f"{self._need.section}.wait_seconds"
            raise InputError(
                f"--address {self._address}: waited {waited:.0f} s for {self._need.words}: {why}; add nodes, or wait "
                f"longer: --set {option}=0 is for ever"
            )
        return False

    def end(self) -> None:
        """The wait is over: take back what the autoscaler was asked for."""
        self._measure("vaal_waiting_seconds", 0)
        if self._has_asked:
            request_resources(bundles=[])
            self._has_asked = False

    def _ask(self, there: int) -> None:
        """Ask the autoscaler, once. Raises ConfigError if it has answered that it can never add them."""
        if not self._has_asked:
            request_resources(bundles=[self._need.resources] * self._need.num)
            self._has_asked = True
        elif _is_refused(self._need):
            fix = "--set device=cpu, or " if self._need.gpus else ""
            raise ConfigError(
                f"--address {self._address}: {self._need.words} can never be there: the cluster has {there}, and its "
                f"autoscaler cannot add the rest; {fix}lower {self._need.section}.workers, or let it add more nodes"
            )


def wait_for(need: Need, address: str, log: Log, measure: Measure) -> None:
    """Return when the cluster has the machines. A private Ray has what it has, and what it lacks is refused elsewhere.

    Raises as `Watch.look`.
    """
    if address == LOCAL:
        return
    watch = Watch(need, address, log, measure)
    try:
        while not watch.look():
            time.sleep(LOOK_SECONDS)
    finally:
        watch.end()


@contextmanager
def watched(
    need: Need, address: str, log: Log, measure: Measure, has_begun: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Say it while the body runs and the machines are gone: the body waits for them in silence.

    Raises InputError, in place of the interrupt that ends the body, if they were waited for long enough.
    """
    if address == LOCAL:
        yield
        return
    watch = Watch(need, address, log, measure, has_begun)

    def look() -> None:
        # Of a head that is lost, others say so.
        with suppress(ray.exceptions.RayError):
            watch.look()

    try:
        with repeated(look, LOOK_SECONDS, most_wait=LOOK_SECONDS) as thread:
            yield
    finally:
        # Without a head, what it asked for is never answered.
        if not thread.is_alive():
            watch.end()


def room(need: Need) -> int:
    """How many of the processes the cluster's nodes have room for, whoever uses them now."""
    return in_nodes((node["Resources"] for node in ray.nodes() if node["Alive"]), need)


def in_nodes(nodes: Iterable[Any], need: Need) -> int:
    """How many of the processes nodes with these resources have room for."""
    return sum(_in_node(resources, need) for resources in nodes)


def _is_refused(need: Need) -> bool:
    """Whether the autoscaler answered that it can never add what it was asked for. False where it has not yet answered,
    or there is none: nodes may be added by hand. An older one than version 2 does not say."""
    try:
        client: Any = GcsClient(address=ray.get_runtime_context().gcs_address)
        reply = GetClusterStatusReply.FromString(client.get_cluster_status(timeout_s=ANSWER_SECONDS))
    except ray.exceptions.RayError:
        # Of a head that is lost, others say so.
        return False
    refused = reply.autoscaling_state.infeasible_cluster_resource_constraints
    asked = (request for constraint in refused for request in constraint.resource_requests)
    return any(dict(some.request.resources_bundle) == need.resources and some.count == need.num for some in asked)


def _in_node(resources: Any, need: Need) -> int:
    return int(min(resources[name] // share if name in resources else 0 for name, share in need.resources.items()))
