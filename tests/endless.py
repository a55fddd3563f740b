"""A file that never ends, for tests that rows are read as they come."""

import io
import itertools
from collections.abc import Iterator


class Endless(io.RawIOBase):
    """`head`, then `line` again and again."""

    def __init__(self, head: bytes, line: bytes) -> None:
        self._parts: Iterator[bytes] = itertools.chain([head] if head else [], itertools.repeat(line))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        part = next(self._parts)
        buffer[: len(part)] = part
        return len(part)
