"""The faults of the product that the machine meets and lets pass. A row goes when its fault is repaired."""

import re
from typing import NamedTuple


class Fault(NamedTuple):
    """`pattern` matches the text of the broken law, as `BrokenLawError` writes it; `what` says it in words."""

    pattern: str
    what: str


KNOWN_FAULTS: dict[str, Fault] = {}


class BrokenLawError(AssertionError):
    """A law of the product is broken: "law: what happened [after: the disturbances so far]"."""


def known_fault(text: str) -> str | None:
    """The name of the known fault that this text shows; None for a new one."""
    return next((name for name, fault in KNOWN_FAULTS.items() if re.search(fault.pattern, text, re.DOTALL)), None)
