"""A file that never ends, for tests that rows are read as they come."""

import io
from collections.abc import Iterator


class Endless(io.RawIOBase):
    """The parts, one after the other."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._rest = parts, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        while not self._rest:
            self._rest = next(self._parts)
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)
