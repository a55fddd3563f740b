"""A file that comes back is claimed by its own vendor alone."""

import json
import pkgutil

import pytest

from engine.handoff import VENDORS
from engine.handoff.answer_files import HEAD_BYTES
from engine.handoff.exchange import Question
from tests.engine.handoff.vendors import test_label_studio as label_studio
from tests.engine.handoff.vendors import test_labelbox as labelbox
from tests.engine.handoff.vendors import test_scale as scale
from tests.engine.handoff.vendors.table_batches import IDS, outgoing
from tests.engine.handoff.vendors.test_coco import instances
from tests.engine.handoff.vendors.test_cvat import image, xml
from tests.engine.handoff.vendors.test_encord import answer_of, boxed, row_of
from tests.engine.handoff.vendors.test_generic import as_file
from tests.engine.handoff.vendors.test_ground_truth import META
from tests.engine.handoff.vendors.test_imagefolder import PNG
from tests.engine.handoff.vendors.test_tsv import EXAMPLE, tabs
from tests.engine.handoff.vendors.test_v7 import darwin, tag

A, B = IDS[:2]
NEUTRAL = [{"item_id": A, "label": "jug", "annotator": "ann"}, {"item_id": B, "label": "kettle", "annotator": "ann"}]
FILED = [{"file_name": f"images/{A}.png", "label": "jug"}]
MANIFEST = {"source-ref": f"s3://b/{A}.png", "item-id": A, "x": 0, "x-metadata": META}
STUDIO = [label_studio.exported(A, label_studio.annotation(1, label_studio.choices("jug"))), label_studio.exported(B)]
BOX = [labelbox.exported(A, labelbox.label(1, labelbox.radio("jug"))), labelbox.exported(B)]
SCALE = [scale.task(A, scale.category(["jug"])), scale.task(B, status="pending")]
TOLOKA = tabs([{"INPUT:item_id": A, "OUTPUT:label": "jug", "ASSIGNMENT:worker_id": "w1"}])
SHAPES = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
FILES = [
    *(("generic", f"answers.{form}", as_file(NEUTRAL, form)) for form in ("csv", "tsv", "jsonl", "parquet")),
    ("coco", "instances.json", instances([{"image_id": 1, "category_id": 1}])),
    ("coco", "instances.json", instances([SHAPES])),
    ("cvat", "annotations.xml", xml(image(f"images/{A}.png", '<tag label="jug"/>'))),
    ("cvat", "default.txt", f"images/{A}.png 0\n"),
    ("encord", "labels.json", json.dumps([row_of(A, answer_of("class", "jug")), row_of(B)])),
    ("encord", "label.json", json.dumps(row_of(A, objects=[boxed("jug", 0, 0, 1, 1)]))),
    ("ground-truth", "manifests/output/output.manifest", f"{json.dumps(MANIFEST)}\n"),
    ("imagefolder", f"jug/{A}.png", PNG),
    *(("imagefolder", f"metadata.{form}", as_file(FILED, form)) for form in ("csv", "jsonl", "parquet")),
    ("label-studio", "project-1.json", json.dumps(STUDIO)),
    ("label-studio", "project-1.json", json.dumps(STUDIO, indent=2)),
    ("labelbox", "export.ndjson", "".join(f"{json.dumps(row)}\n" for row in BOX)),
    ("labelbox", "export.json", json.dumps(BOX)),
    ("scale", "tasks.json", json.dumps(SCALE)),
    ("scale", "tasks.jsonl", "".join(f"{json.dumps(row)}\n" for row in SCALE)),
    ("tsv", "assignments.tsv", TOLOKA),
    ("tsv", "assignments.tsv", EXAMPLE),
    ("v7", f"{A}.json", darwin(f"{A}.png", tag("jug", "a@x.org"), item_id="7")),
    ("v7", "tags.csv", f"/{A}.png,jug\n"),
]


def claims(path: str, content: bytes | str) -> list[str]:
    """The vendors that say that the file is theirs."""
    head = (content.encode() if isinstance(content, str) else content)[:HEAD_BYTES]
    return [name for name, vendor in VENDORS.items() if pkgutil.resolve_name(f"{vendor.module}:is_mine")(path, head)]


@pytest.mark.parametrize(("vendor", "path", "content"), FILES, ids=[f"{vendor}:{path}" for vendor, path, _ in FILES])
def test_a_file_is_claimed_by_its_own_vendor_alone(vendor: str, path: str, content: bytes | str) -> None:
    assert claims(path, content) == [vendor]
    assert claims(f"an export/of today/{path}", content) == [vendor]


def test_every_vendor_has_a_file() -> None:
    assert {vendor for vendor, _, _ in FILES} == VENDORS.keys()


@pytest.mark.parametrize("task", ["class", "classes", "boxes", "mask"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_what_was_sent_is_claimed_by_no_other_vendor(vendor: str, task: str) -> None:
    write_tasks = pkgutil.resolve_name(f"{VENDORS[vendor].module}:write_tasks")
    for name, content in write_tasks(outgoing(Question(task, ["jug", "kettle"], "Which?"))):  # type: ignore[arg-type]
        assert set(claims(name, content)) <= {vendor}, name
