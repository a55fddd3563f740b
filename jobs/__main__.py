"""`python -m jobs` is `vaal`."""

import signal
import sys


def main() -> None:
    """The console script. Ctrl-C while modules load is one line too."""
    try:
        from jobs.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; run the same command again to continue\n")
        sys.exit(1)
    finally:
        # All is done and said. What libraries do at their end is not interrupted: the exit status stays what it is.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
