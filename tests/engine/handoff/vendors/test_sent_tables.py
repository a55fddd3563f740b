"""Vendors whose files are tables learn nothing but the tasks and the question."""

import pkgutil
import re

import pytest

from engine.handoff import VENDORS
from engine.handoff.exchange import Question
from tests.engine.handoff.vendors.table_batches import IDS, outgoing

INTERNAL = re.compile(rb"rank|score|logit|gold|shard|cluster|round|campaign|\.tar|/in/|control", re.IGNORECASE)


@pytest.mark.parametrize("prefix", ["", "s3://b/7/"])
@pytest.mark.parametrize("task", ["class", "classes", "boxes", "mask"])
@pytest.mark.parametrize("vendor", ["generic", "ground-truth", "imagefolder", "tsv"])
def test_what_is_sent_holds_every_task_once_and_nothing_internal(vendor: str, task: str, prefix: str) -> None:
    batch = outgoing(Question(task, ["kettle", "=jug"], "Which?"), prefix=prefix)  # type: ignore[arg-type]
    write_tasks = pkgutil.resolve_name(f"{VENDORS[vendor].module}:write_tasks")
    files = dict(write_tasks(batch))
    tables = [name for name in files if name.startswith(("tasks.csv", "tasks.tsv", "input.manifest", "metadata.csv"))]
    lines = files[tables[0]].splitlines()
    assert [sum(f"images/{i}.png".encode() in line for line in lines) for i in IDS] == [1] * 3
    assert not [content for content in files.values() if INTERNAL.search(content)]
    if vendor != "generic":
        assert not [content for content in files.values() if b"priority" in content or b"sha256" in content]
