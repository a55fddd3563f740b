"""Reads that are retried after transient storage errors. Other errors are raised at once, unchanged."""

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
"""Waits double, each times a random 0.5 to 1.5, so that readers of one store do not retry in step. They add up to 90 s,
not counting the retries of the file system's own client."""

_TRANSIENT_ERRNOS = frozenset(
    {
        # Network and FUSE mounts answer EIO and ENOTCONN while their server is away. A broken disk answers EIO too, and
        # is reported 90 seconds later.
        errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.EREMOTEIO, errno.EAGAIN, errno.EINTR, errno.EBUSY,
        errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ENETDOWN,
        errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    }
)  # fmt: skip
_TRANSIENT_TEXT = re.compile(
    # Arrow has only texts for these, no codes: one line each for S3, Google, Azure (whose code is empty if there was no
    # answer, or one without a body), and libcurl below them.
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|THROTTLING|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|REQUEST_TIMEOUT"
    r"|UNKNOWN \(HTTP status (-1|408|429|500|502|503|504)\))"
    r"|google::cloud::Status\((UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL|RESOURCE_EXHAUSTED|ABORTED)\b"
    r"|Azure Error: \[(ServerBusy|OperationTimedOut|InternalError|TooManyRequests)\]"
    r"|Azure Error: \[\] (408|429|500|502|503|504|(?!\d{3} ))"
    r"|curlCode: \d|Couldn't connect|Could not connect|Connection reset|[Tt]imed out"
)


_STORE_TEXT = re.compile("AWS Error|google::cloud::Status|Azure Error|curlCode|given up after")


def is_refusal(error: Exception) -> bool:
    """Whether the storage refused or failed, so that nothing is known of the file; not one that is missing or damaged.

    Arrow reports damaged Parquet as an OSError too, but without a code.
    """
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return False
    return error.errno is not None or _STORE_TEXT.search(str(error)) is not None


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later. Missing files and missing permissions are not transient."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno:
        return error.errno in _TRANSIENT_ERRNOS
    return _TRANSIENT_TEXT.search(str(error)) is not None


def retried(attempt: Callable[[], T], wait: Callable[[float], object] = time.sleep) -> T:
    """The result of `attempt`, retried with growing waits (seconds, given to `wait`) while its errors are transient.

    Raises:
        OSError: every try failed; the text has their number and the last error.
        Exception: the error of `attempt`, if it is not transient.
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
    """A file's bytes front to back. After a transient error the file is opened again at the same byte.

    Args:
        open_at: opens an Arrow file at a byte, for every attempt. It raises an error that is not transient if the file
            has changed.
        total_bytes: the file's size. A stream that ends earlier is a transient error.
    """

    def __init__(self, open_at: Callable[[int], Any], total_bytes: int) -> None:
        self.position = 0
        self._open_at, self._total_bytes = open_at, total_bytes
        self._stream: Any = None
        self._is_interrupted = threading.Event()

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer only where the file ends.

        Raises OSError if all tries failed, or an error is not transient; the text names the byte. All later reads fail
        too.
        """
        return self._read(count, lambda stream, _, count: stream.read(count))

    def read_at(self, position: int, count: int) -> bytes:
        """As `read`, from `position` on. A stream must use only one of the two."""
        self.position = position
        # Without a seek: Arrow's file in a Google bucket would then request all that follows.
        return self._read(count, lambda stream, position, count: stream.read_at(count, position))

    def _read(self, count: int, ask: Callable[[Any, int, int], bytes]) -> bytes:
        parts: list[bytes] = []
        end = min(self.position + count, self._total_bytes)

        def attempt() -> None:
            # Parts that an attempt has read are kept: `position` follows every part.
            while self.position < end:
                if self._is_interrupted.is_set():
                    raise InterruptedError("interrupted")
                parts.append(self._read_part(end - self.position, ask))
                self.position += len(parts[-1])

        try:
            retried(attempt, self._is_interrupted.wait)
        except (OSError, pa.ArrowException) as error:
            # Reads that were submitted ahead must not start their own retries.
            self.interrupt()
            raise OSError(f"byte {self.position}: {one_line(error)}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_part(self, count: int, ask: Callable[[Any, int, int], bytes]) -> bytes:
        try:
            if self._stream is None:
                self._stream = self._open_at(self.position)
            part = ask(self._stream, self.position, count)
        except BaseException as error:
            self.close()
            if isinstance(error, ValueError) and not isinstance(error, pa.ArrowException):
                # Python's error for a file that the storage's client has closed by itself.
                raise ConnectionError(one_line(error)) from error
            raise
        if not part:
            self.close()
            raise ConnectionError(f"the stream ends {self._total_bytes - self.position} bytes early")
        return part

    def interrupt(self) -> None:
        """From another thread: make a read that waits for its next try, and all later reads, fail now."""
        self._is_interrupted.set()

    def close(self) -> None:
        """Close the file. A later `read` opens it again."""
        if self._stream is not None:
            # Closing a broken file can fail, which is no news.
            with suppress(OSError, pa.ArrowException):
                self._stream.close()
            self._stream = None
