"""Labelling vendors: one row each (`--to`, `--from`).

A row names its module, which is imported when it is used. Add a vendor as one file and one row. The module has two
functions. `write_tasks(folder, tasks)` writes a vendor's task files next to images/ and returns their SHA-256 by name.
`read_answers(file)` returns the rows of a file of finished labels: item_id, label, and optionally annotator and
labelled_at.
"""

from typing import NamedTuple


class Vendor(NamedTuple):
    """A vendor's module, and its handoff in words."""

    module: str
    text: str


VENDORS = {
    "generic": Vendor("engine.handoff.vendors.generic", "images with a CSV and a JSON-lines list"),
    "label-studio": Vendor(
        "engine.handoff.vendors.label_studio", "tasks, labeling configuration; back the JSON export"
    ),
    "labelbox": Vendor("engine.handoff.vendors.labelbox", "data rows, ontology, batch; back the export of version 2"),
    "scale": Vendor("engine.handoff.vendors.scale", "a request of the API a line, batch; back the tasks"),
}
TASK_COLUMNS = ("item_id", "file", "priority", "bytes", "sha256")
"""The fields of a task: the opaque name, the path of the image below the handoff's folder, 0 for the most valuable
image, and the size and SHA-256 of the image."""
