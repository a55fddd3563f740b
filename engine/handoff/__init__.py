"""Labelling vendors: one row each (`--to`, `--from`).

A row names its module, which is imported when it is used. Add a vendor as one file in vendors/ and one row. The module
has three functions. `write_tasks(Outgoing)` gives the names and contents of the vendor's task files.
`read_answers(AnswerFile, Question)` gives the answers of a file that comes back. `is_mine(path, head)` says whether a
file with this path and these first bytes looks like one. See `engine.handoff.exchange`.
"""

from typing import NamedTuple


class Vendor(NamedTuple):
    """A vendor's module, and its handoff in words. `is_snapshot`: a file that comes later says what is so later, also
    where its answers have neither names nor times."""

    module: str
    text: str
    is_snapshot: bool = True


VENDORS = {
    "generic": Vendor("engine.handoff.vendors.generic", "images with a CSV and a JSON-lines list", is_snapshot=False),
}
TASK_COLUMNS = ("item_id", "file", "priority", "bytes", "sha256")
"""The fields of a task: the opaque name, the path of the image below the handoff's folder, 0 for the most valuable
image, and the size and SHA-256 of the image."""
