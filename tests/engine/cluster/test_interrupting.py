"""Work beside which something is watched for: it ends when that has happened, and not otherwise."""

import threading
import time

import pytest

from engine.cluster.interrupting import repeated
from engine.errors import BusyError


def test_what_is_watched_for_ends_the_body_as_its_error() -> None:
    looks: list[float] = []

    def look() -> None:
        looks.append(time.monotonic())
        if len(looks) == 3:
            raise BusyError("taken")

    with pytest.raises(BusyError, match="taken"), repeated(look, 0.01):
        threading.Event().wait(20)
    time.sleep(0.05)
    assert len(looks) == 3


def test_without_it_the_body_ends_as_it_would() -> None:
    looks: list[int] = []
    with repeated(lambda: looks.append(1), 0.01):
        time.sleep(0.1)
    seen = len(looks)
    time.sleep(0.05)
    assert 1 < seen == len(looks)
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), repeated(lambda: None, 0.01):
            raise error


def test_the_end_waits_for_a_look_that_is_going_on_as_long_as_is_said() -> None:
    began, goes_on = threading.Event(), threading.Event()

    def look() -> None:
        began.set()
        goes_on.wait(20)

    with repeated(look, 0.01, most_wait=0.05) as thread:
        assert began.wait(20)
    assert thread.is_alive()
    with repeated(lambda: time.sleep(0.1), 0.01) as other:
        time.sleep(0.05)
    assert not other.is_alive()
    goes_on.set()
