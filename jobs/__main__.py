"""`python -m jobs` is `vaal`."""

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn


def main() -> None:
    """The console script. Ctrl-C while modules load is one line too."""
    status = 1

    def end() -> None:
        """End the process here, before the static destructors of C++ libraries: a thread of one of them that still
        lives would abort it, after all was done and said."""
        os._exit(_flushed(status))

    # What is registered first is called last: after Ray's shutdown, and all that libraries do at their end.
    atexit.register(end)
    # A user's modules are found where the command runs, by Ray's workers too; what is installed comes first.
    with suppress(OSError):
        sys.path.append(str(Path.cwd()))
    # Ray stops a job by it: the job ends as after Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    # A shell ignores Ctrl-C for what it runs behind.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from jobs.cli import main as run

        run()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except KeyboardInterrupt:
        line = "interrupted; run the same command again to continue"
        sys.stderr.write(f"error: {line}\n")
        if "--json" in sys.argv:
            sys.stdout.write(f'{{"error": "{line}", "exit_status": 1}}\n')
        sys.exit(1)
    finally:
        # All is done and said. What libraries do at their end is not interrupted: the exit status stays what it is.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt(*_: object) -> NoReturn:
    """End the command. Threads of libraries lose what they work on by it, and would print their tracebacks."""
    threading.excepthook = lambda _: None
    raise KeyboardInterrupt


def _flushed(status: int) -> int:
    """The exit status once all that was printed is out: another than 0 where it cannot be written."""
    # A stream that was closed before the start is None.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or 1
    return status


if __name__ == "__main__":
    main()
