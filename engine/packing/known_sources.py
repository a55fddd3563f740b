"""What is packed already, in 16 bytes an image."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def digest(source: str) -> bytes:
    """A hash of 120 bits that stands for a source: none is ever taken for another one."""
    # numpy drops zeros at the end of a text, so the last byte is never one.
    return hashlib.blake2b(source.encode(), digest_size=15).digest() + b"."


class KnownSources:
    """The sources of the images of a pool. All are added before the first question."""

    def __init__(self) -> None:
        self._sorted, self._new = np.empty(0, "S16"), list[NDArray[np.bytes_]]()

    def add(self, sources: Iterable[str]) -> None:
        self._new.append(np.array([digest(source) for source in sources], "S16"))

    def __contains__(self, source: str) -> bool:
        if self._new:
            self._sorted, self._new = np.unique(np.concatenate([self._sorted, *self._new])), []
        if not len(self._sorted):
            return False
        wanted = np.bytes_(digest(source))
        place = int(np.searchsorted(self._sorted, wanted))
        return place < len(self._sorted) and bool(self._sorted[place] == wanted)


def first_twice(digests: list[bytes]) -> tuple[int, int] | None:
    """The places of the two equal digests of which the second comes first; None if all differ."""
    found = np.array(digests, "S16")
    order = np.argsort(found, kind="stable")
    again = np.flatnonzero(found[order[1:]] == found[order[:-1]])
    if not len(again):
        return None
    at = again[np.argmin(order[again + 1])]
    return int(order[at]), int(order[at + 1])
