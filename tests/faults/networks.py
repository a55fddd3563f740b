"""Hosts with addresses of their own on this machine, whose links can be cut: network namespaces beside one switch.

They share the disks, as machines with a shared mount do. It needs root.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.faults.driver import Driver, started

PORT = 6379
NET = "10.77.0"


class NetworkError(Exception):
    """The kernel, or this container, forbids it. The text says what failed."""


class Network(NamedTuple):
    """A switch, and hosts that are numbered from 1."""

    name: str
    num_hosts: int

    def enter(self, host: int) -> tuple[str, ...]:
        """The words before a command that is to run on a host."""
        return ("ip", "netns", "exec", f"{self.name}-{host}")

    def address(self, host: int) -> str:
        return f"{NET}.{host}"

    def cut(self, host: int) -> None:
        """Take the cable out. Nobody is reported that connections are over."""
        _ip("-n", self.name, "link", "set", f"port{host}", "down")

    def connect(self, host: int) -> None:
        _ip("-n", self.name, "link", "set", f"port{host}", "up")

    @contextmanager
    def ray(self, cpus: list[int]) -> Iterator[list[Driver]]:
        """A Ray whose head is on the first host, and a node on each of the others. Yields their processes."""
        with ExitStack() as stack:
            nodes = []
            for host, num_cpus in enumerate(cpus, 1):
                place = [f"--port={PORT}", "--head", "--include-dashboard=false"] if host == 1 else [self._join()]
                words = [
                    *self.enter(host), str(Path(sys.executable).with_name("ray")), "start", *place, "--block",
                    f"--num-cpus={num_cpus}", f"--node-ip-address={self.address(host)}",
                    "--object-store-memory=268435456", "--disable-usage-stats",
                ]  # fmt: skip
                nodes.append(stack.enter_context(started(words, {})))
                nodes[-1].wait_for_words("Ray runtime started")
            yield nodes

    def _join(self) -> str:
        return f"--address={self.address(1)}:{PORT}"


@contextmanager
def network(num_hosts: int) -> Iterator[Network]:
    """Raises NetworkError where that is not permitted."""
    made = Network(f"vaal{os.getpid()}", num_hosts)
    with ExitStack() as stack:
        _namespace(made.name, stack)
        _ip("-n", made.name, "link", "add", "switch", "type", "bridge")
        _ip("-n", made.name, "link", "set", "switch", "up")
        for host in range(1, num_hosts + 1):
            inside, port = f"{made.name}-{host}", f"port{host}"
            _namespace(inside, stack)
            _ip("-n", made.name, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", inside)
            _ip("-n", made.name, "link", "set", port, "master", "switch", "up")
            _ip("-n", inside, "addr", "add", f"{made.address(host)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", inside, "link", "set", device, "up")
        yield made


def _namespace(name: str, stack: ExitStack) -> None:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "delete", name)


def _ip(*words: str) -> None:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as error:
        raise NetworkError(str(error)) from error
    if done.returncode:
        raise NetworkError(f"ip {' '.join(words)}: {done.stderr.strip()}")
