"""Watching beside the main thread's work, which ends as by Ctrl-C when what is watched for has happened."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.errors import VaalError


@contextmanager
def repeated(
    look: Callable[[], object], seconds: float, *, most_wait: float | None = None
) -> Iterator[threading.Thread]:
    """Call `look` every so many seconds, in a thread of its own, while the body runs.

    The VaalError that it raises is its last: it ends the body, if that is in the main thread, and is raised in place of
    the interrupt. At the end the last look is waited for, `most_wait` seconds at most. Yields the thread.
    """
    is_over, found = threading.Event(), list[VaalError]()
    is_main = threading.current_thread() is threading.main_thread()

    def follow() -> None:
        while not is_over.wait(seconds):
            try:
                look()
            except VaalError as error:
                found.append(error)
                if is_main and not is_over.is_set():
                    _interrupt_main_thread()
                return

    thread = threading.Thread(target=follow, name="watch", daemon=True)
    thread.start()
    try:
        yield thread
    except KeyboardInterrupt:
        if not found:
            raise
    finally:
        is_over.set()
        thread.join(most_wait)
    if found:
        raise found[0] from None


def _interrupt_main_thread() -> None:
    """Raise KeyboardInterrupt in the main thread, also where it waits for a lock: by a real signal."""
    # Ctrl-C's is ignored in what a shell runs behind.
    is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    number = signal.SIGTERM if is_ignored else signal.SIGINT
    signal.pthread_kill(threading.main_thread().ident or 0, number)
