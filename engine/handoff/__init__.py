"""Labelling vendors: one row each (`--to`, `--from`).

A row names its module, which is imported when it is used. Add a vendor as one file in vendors/ and one row. The module
has three functions, whose records are in `exchange`. `write_tasks(Outgoing)` yields the names and contents of the
vendor's task files. `read_answers(AnswerFile, Question)` yields the answers of a file that comes back. `is_mine(path,
head)` says by a file's path and first bytes whether it is one of this vendor's.
"""

from typing import NamedTuple


class Vendor(NamedTuple):
    """A vendor's module, its handoff in words, and the name of its list of tasks. `is_snapshot`: a file that comes
    later says what is so later, also where its answers have neither names nor times."""

    module: str
    text: str
    tasks: str
    is_snapshot: bool = True


VENDORS = {
    "generic": Vendor(
        "engine.handoff.vendors.generic", "images with a CSV and a JSON-lines list", "tasks.csv", is_snapshot=False
    ),
    "coco": Vendor("engine.handoff.vendors.coco", "COCO instances", "instances.json"),
    "cvat": Vendor("engine.handoff.vendors.cvat", "CVAT: manifest, task, data and labels", "manifest.jsonl"),
    "encord": Vendor("engine.handoff.vendors.encord", "Encord: upload list and ontology", "upload.json"),
    "ground-truth": Vendor(
        "engine.handoff.vendors.ground_truth", "manifests of Amazon SageMaker Ground Truth", "input.manifest"
    ),
    "imagefolder": Vendor(
        "engine.handoff.vendors.imagefolder", "a folder of images, which come back in one a class", "metadata.csv"
    ),
    "label-studio": Vendor("engine.handoff.vendors.label_studio", "tasks and the labeling configuration", "tasks.json"),
    "labelbox": Vendor("engine.handoff.vendors.labelbox", "data rows, ontology and batch", "data_rows.json"),
    "scale": Vendor("engine.handoff.vendors.scale", "a request of the API a line, and the batch", "tasks.jsonl"),
    "tsv": Vendor("engine.handoff.vendors.tsv", "tab-separated tasks with Toloka's columns", "tasks.tsv"),
    "v7": Vendor("engine.handoff.vendors.v7", "V7 Darwin: registrations and classes", "register_items.jsonl"),
}
