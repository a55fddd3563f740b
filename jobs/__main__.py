"""`python -m jobs` is `vaal`."""

from jobs.cli import main

if __name__ == "__main__":
    main()
