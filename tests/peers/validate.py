"""Runs in a peer's environment: validate.py NAME FOLDER... asks the peer whether it accepts a vendor's folders.

Prints a JSON list: for each folder why it is refused, or null. Ends with 1 if any is refused.
"""

import json
import runpy
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path


def require(condition: object, why: str) -> None:
    """What a peer's program does not check itself, and its server or its users do."""
    if not condition:
        raise ValueError(why)


def require_images(folder: Path, items: Iterable[str]) -> None:
    """The tasks name each image of the folder once; where images are elsewhere, each item once."""
    found = list(items)
    require(found, "no tasks")
    require(len(found) == len(set(found)), "an item twice")
    if (folder / "images").exists():
        images = {path.stem for path in (folder / "images").iterdir()}
        require(set(found) == images, f"tasks and images differ: {sorted(images ^ set(found))[:3]}")


def refusal(check: Callable[[Path], None], folder: Path) -> str | None:
    """Why a folder is refused; None if it is accepted. Whatever the peer raises is a refusal."""
    try:
        with redirect_stdout(sys.stderr):
            check(folder)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return None


def main(name: str, *folders: str) -> int:
    check = runpy.run_path(str(Path(__file__).parent / name / "validate.py"))["check"]
    refusals = [refusal(check, Path(folder)) for folder in folders]
    json.dump(refusals, sys.stdout)
    return int(any(refusals))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
