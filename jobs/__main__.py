"""`python -m jobs` is `vaal`."""

import sys


def main() -> None:
    """The console script. Ctrl-C while modules load is one line too."""
    try:
        from jobs.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; run the same command again to continue\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
