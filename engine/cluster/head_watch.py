"""A cluster whose head is lost is logged, and ends the run with an error. Ray alone ends the process in silence."""

import atexit
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from engine.cluster.interrupting import repeated
from engine.errors import InputError

LOG = logging.getLogger("vaal.cluster")
LOOK_SECONDS = 2.0
ANSWER_SECONDS = 10.0
"""A cluster that does not answer for so long is not there. Ray itself would ask for minutes."""
LOST_SECONDS = 45.0
"""A head that is silent for so long is lost. Ray gives up after 60 seconds, at which it ends the process."""


class LostHeadError(InputError):
    """The head of the cluster that a stage ran on answers no longer."""


def speaks(place: str) -> bool:
    """Whether a server of gRPC answers at host:port; where Ray uses TLS, whether any does.

    Raises OSError, OverflowError or UnicodeError if nothing answers, or it is no address.
    """
    host, _, port = place.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
        # The beginning of HTTP/2, to which a server of gRPC answers with its own settings.
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        is_encrypted = os.environ.get("RAY_USE_TLS", "0") != "0"
        return connection.recv(4)[3:] == b"\4" or is_encrypted


@contextmanager
def require_head(address: str) -> Iterator[None]:
    """While the body runs on the cluster at this address, see that its head answers.

    Raises LostHeadError, in place of the interrupt that ends the body, when the head was silent for `LOST_SECONDS`; and
    in place of an error of the body while the head is silent.
    """
    place = ray.get_runtime_context().gcs_address
    answered, has_said = time.monotonic(), False

    def look() -> None:
        nonlocal answered, has_said
        if _answers(place):
            answered, has_said = time.monotonic(), False
            return
        silent = time.monotonic() - answered
        if silent >= ANSWER_SECONDS and not has_said:
            LOG.warning("the head of the cluster at %s does not answer; waiting for it", address)
            has_said = True
        if silent >= LOST_SECONDS:
            raise _lost(address)

    with repeated(look, LOOK_SECONDS, most_wait=0):
        try:
            yield
        except Exception as error:
            # Actors of Ray may die with the head before it counts as lost.
            if _answers(place):
                raise
            raise _lost(address) from error


def _lost(address: str) -> LostHeadError:
    # Ray's end of the session would wait for the head.
    atexit.unregister(ray.shutdown)
    return LostHeadError(
        f"--address {address}: the head of the cluster was lost: it does not answer; nothing that was complete is "
        "lost; run the same command again when a cluster is there"
    )


def _answers(place: str) -> bool:
    try:
        return speaks(place)
    except OSError:
        return False
