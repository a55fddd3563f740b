"""Ending the work of the main thread from another one, as Ctrl-C would."""

import signal
import threading


def interrupt_main_thread() -> None:
    """Raise KeyboardInterrupt in the main thread, also where it waits for a lock: by a real signal."""
    # Ctrl-C's is ignored in what a shell runs behind.
    is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    number = signal.SIGTERM if is_ignored else signal.SIGINT
    signal.pthread_kill(threading.main_thread().ident or 0, number)
