"""Reading on through the errors that storage throws in passing; all others come out as they are, at once."""

import errno
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import pyarrow as pa

from engine.errors import one_line

T = TypeVar("T")
ATTEMPTS = 9
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""The waits double, each times 0.5 to 1.5 at random, so that readers of one store do not return together: a minute and
a half in all, besides what the file system's own client waits in an attempt."""

_TRANSIENT_ERRNOS = frozenset(
    {
        # EIO and ENOTCONN are what network and FUSE mounts answer while their server is away. A disk that is broken
        # answers EIO too, and is told of a minute later.
        errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.EREMOTEIO, errno.EAGAIN, errno.EINTR, errno.EBUSY,
        errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ENETDOWN,
        errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    }
)  # fmt: skip
_TRANSIENT_TEXT = re.compile(
    # Arrow has no codes for these, only texts: one line each for S3, Google, Azure (whose code is empty where there was
    # no answer, or none with a body), and for libcurl below all of them.
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|THROTTLING|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|REQUEST_TIMEOUT"
    r"|UNKNOWN \(HTTP status (-1|408|429|500|502|503|504)\))"
    r"|google::cloud::Status\((UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL|RESOURCE_EXHAUSTED|ABORTED)\b"
    r"|Azure Error: \[(ServerBusy|OperationTimedOut|InternalError|TooManyRequests)\]"
    r"|Azure Error: \[\] (408|429|500|502|503|504|(?!\d{3} ))"
    r"|curlCode: \d|Couldn't connect|Could not connect|Connection reset|[Tt]imed out"
)


class _ShortReadError(OSError):
    """The stream ended before the file does."""


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later. A missing file, or one without permission, is not transient."""
    if isinstance(error, _ShortReadError | TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno:
        return error.errno in _TRANSIENT_ERRNOS
    return _TRANSIENT_TEXT.search(str(error)) is not None


def retried(attempt: Callable[[], T], wait: Callable[[float], object] = time.sleep) -> T:
    """What `attempt` returns, tried again with growing waits (seconds, given to `wait`) while its errors are transient.

    Raises:
        OSError: every try failed; the text gives their number and the last error.
        Exception: what `attempt` raised, if it is not transient.
    """
    wait_s = FIRST_WAIT_S
    for tries_left in reversed(range(ATTEMPTS)):
        try:
            return attempt()
        except (OSError, pa.ArrowException) as error:
            if not is_transient(error):
                raise
            if not tries_left:
                raise OSError(f"given up after {ATTEMPTS} tries: {one_line(error)}") from error
        wait(wait_s * random.uniform(0.5, 1.5))
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
    raise AssertionError


class RetryingStream:
    """A file's bytes front to back. After a transient error it is opened afresh and read on from the same byte.

    Args:
        open_at: opens an Arrow file that stands at a byte. It is called for every attempt, and raises what is not to be
            retried when the file is no longer the same.
        total_bytes: the file's size. A stream that ends before is a transient error.
    """

    def __init__(self, open_at: Callable[[int], Any], total_bytes: int) -> None:
        self.position = 0
        self._open_at, self._total_bytes = open_at, total_bytes
        self._stream: Any = None
        self._is_interrupted = threading.Event()

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer only where the file ends.

        Raises:
            OSError: the tries are used up, or an error is not transient; the text names the byte. All later reads
                fail too.
        """
        return self._read(count, lambda stream, _, count: stream.read(count))

    def read_at(self, position: int, count: int) -> bytes:
        """As `read`, from `position` on. The two are not to be mixed."""
        self.position = position
        # Not by seeking: Arrow's file in a Google bucket would then ask for all that follows.
        return self._read(count, lambda stream, position, count: stream.read_at(count, position))

    def _read(self, count: int, ask: Callable[[Any, int, int], bytes]) -> bytes:
        parts: list[bytes] = []
        end = min(self.position + count, self._total_bytes)

        def attempt() -> None:
            # What an attempt did read is kept: `position` follows every part.
            while self.position < end:
                if self._is_interrupted.is_set():
                    raise InterruptedError("interrupted")
                parts.append(self._read_part(end - self.position, ask))
                self.position += len(parts[-1])

        try:
            retried(attempt, self._is_interrupted.wait)
        except (OSError, pa.ArrowException) as error:
            # Reads that were asked for ahead are not to begin with patience of their own.
            self.interrupt()
            raise OSError(f"byte {self.position}: {one_line(error)}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_part(self, count: int, ask: Callable[[Any, int, int], bytes]) -> bytes:
        try:
            if self._stream is None:
                self._stream = self._open_at(self.position)
            part = ask(self._stream, self.position, count)
        except ValueError as error:
            self.close()
            if isinstance(error, pa.ArrowException):
                raise
            # What Python says of a file that the storage's client has closed by itself.
            raise _ShortReadError(one_line(error)) from error
        except BaseException:
            self.close()
            raise
        if not part:
            self.close()
            raise _ShortReadError(f"the stream ends {self._total_bytes - self.position} bytes early")
        return part

    def interrupt(self) -> None:
        """From another thread: a read that waits to be tried again fails now, and so do all later ones."""
        self._is_interrupted.set()

    def close(self) -> None:
        """Let go of the file. A later `read` opens it again."""
        if self._stream is not None:
            # Closing what is broken can fail, and tells nothing new.
            with suppress(OSError, pa.ArrowException):
                self._stream.close()
            self._stream = None
