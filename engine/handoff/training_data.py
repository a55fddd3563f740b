"""The labelled set as training data: WebDataset shards in seeded parts, in which a group of images stays together.

A data set is complete exactly when its dataset.json exists, which is written last. All files follow from the labels,
the pool and the arguments: an export that was interrupted and runs again writes the same bytes.
"""

import hashlib
import importlib.metadata
import json
import re
from collections import Counter
from itertools import chain
from typing import Any, NamedTuple

from engine.campaign.changes import MOST_LINES, current_shards
from engine.campaign.folder import Campaign
from engine.campaign.labels import Snapshot, read_snapshot
from engine.campaign.positions import positions_of
from engine.campaign.stages import Log, Progress
from engine.errors import InputError
from engine.handoff.labelled_samples import Form, Sample, planned, samples_of, write_shard
from engine.handoff.splits import shares_of
from engine.pool.mask_source import mask_inputs, mask_source
from engine.pool.shard import Shard
from engine.storage.documents import read_document
from engine.storage.location import Location

DATASET_FILE, CLASSES_FILE, STARTED_FILE = "dataset.json", "classes.json", "unfinished.json"
FORM = 1
"""Of the files: one that writes others from the same labels has another number."""
_OWN = re.compile(r"[A-Za-z0-9_-]+-\d{5}\.tar|classes\.json|unfinished\.json")


class Exported(NamedTuple):
    """What was written: images by part, the classes in the order of their numbers, the names of the shards, and why
    labelled images are left out."""

    images: dict[str, int]
    classes: list[str]
    shards: list[str]
    left_out: list[str]


def export_labels(
    campaign: Campaign, folder: Location, split: str, seed: int, on_progress: Progress, log: Log
) -> Exported:
    """Write the labelled images and their labels into an empty folder; where that was interrupted, again. A data set
    that is complete and would be the same is left alone.

    Args:
        split: "NAME=SHARE,...": the parts that groups of images are dealt into, and how much of all each gets.
        seed: of the dealing. An image stays in its part while others get labels.

    Raises:
        ConfigError: the split is wrong.
        InputError: nothing is labelled, the folder holds something else, or a shard changes meanwhile or cannot be
            read.
    """
    shares, snapshot = shares_of(split), read_snapshot(campaign.home)
    if not len(snapshot.labels):
        raise InputError(f"{campaign.home}: nothing is labelled; see: vaal labels {campaign.home.quoted} list")
    with current_shards(campaign, log) as shards:
        positions = positions_of(campaign.home, snapshot.labels, shards, campaign.config.image, log)
        samples, left_out = samples_of(campaign, snapshot, positions, shares, seed)
        _log_some(log, left_out)
        by_name = shards.find(positions.table["shard"].to_pylist())
        plan = planned(samples, shares)
        masks = mask_source(campaign.config, campaign.home)
        # The numbers in masks are in the order of the classes.
        classes = _classes_of(samples) if masks is None else list(masks.classes)
        found = Exported(_counts(samples, list(shares)), classes, list(plan), left_out)
        content = _content_of(samples, found.classes, list(plan), mask_inputs(masks))
        if _is_done(folder, content):
            log(f"{folder}: this data set is there already")
            return found
        for part in (part for part, count in found.images.items() if not count):
            log(f"part {part} is empty: there are too few groups of labelled images")
        _begin(folder, content)
        number_of = {name: number for number, name in enumerate(classes)}
        form = Form(number_of, campaign.config.handoff.question, masks)
        written = _write_shards(folder, plan, by_name, form, on_progress)
    manifest = _manifest(campaign, snapshot, found, written, {"content": content, "split": split, "seed": seed})
    (folder / CLASSES_FILE).write_bytes(json.dumps(found.classes, ensure_ascii=False, indent=2).encode())
    (folder / DATASET_FILE).write_json(manifest)
    (folder / STARTED_FILE).delete()
    return found


def _write_shards(
    folder: Location, plan: dict[str, list[Sample]], shards: dict[str, Shard], form: Form, on_progress: Progress
) -> dict[str, dict[str, Any]]:
    """Write the shards of a plan. Returns the facts on each by its name."""
    written: dict[str, dict[str, Any]] = {}
    total, done = sum(map(len, plan.values())), 0
    for name, samples in plan.items():
        sha256, size_bytes = write_shard(folder / name, samples, shards, form)
        written[name] = {"images": len(samples), "size_bytes": size_bytes, "sha256": sha256}
        done += len(samples)
        on_progress(done / total, f"{done} of {total} images")
    return written


def _manifest(
    campaign: Campaign,
    snapshot: Snapshot,
    found: Exported,
    written: dict[str, dict[str, Any]],
    facts: dict[str, Any],
) -> dict[str, Any]:
    return {
        "form": FORM,
        "task": campaign.config.handoff.question.task,
        **facts,
        "images": found.images,
        "classes": len(found.classes),
        "left_out": len(found.left_out),
        "shards": written,
        "labels": snapshot.files,
        "code_version": importlib.metadata.version("vaal"),
    }


def _counts(samples: list[Sample], parts: list[str]) -> dict[str, int]:
    counts = Counter(sample.part for sample in samples)
    return {part: counts[part] for part in parts}


def _classes_of(samples: list[Sample]) -> list[str]:
    return sorted(set(chain.from_iterable(sample.classes for sample in samples)))


def _content_of(samples: list[Sample], classes: list[str], shards: list[str], masks: dict[str, Any]) -> str:
    """SHA-256 of what the files say, which needs no image to be read."""
    digest = hashlib.sha256(json.dumps([FORM, classes, shards, *masks.values()]).encode())
    for sample in samples:
        digest.update(json.dumps([sample.part, sample.item_id, sample.place.content_hash, sample.facts]).encode())
    return digest.hexdigest()


def _is_done(folder: Location, content: str) -> bool:
    """Whether the folder holds this data set. Raises InputError where it holds another one, or files of it are gone."""
    if not (folder / DATASET_FILE).exists():
        return False
    found = read_document(folder / DATASET_FILE, dict[str, Any], "export into another folder")
    if found.get("content") != content:
        why = "a data set of other labels, images or parts is there"
        raise InputError(f"{folder}: {why}; export into another folder, or delete this one")
    there = folder.children()
    for name, facts in found["shards"].items():
        if there.get(name) != facts["size_bytes"]:
            why = f"{name} is gone, or not the file that was written"
            raise InputError(f"{folder}: {why}; delete the folder, and export again")
    if STARTED_FILE in there:
        (folder / STARTED_FILE).delete()
    return True


def _begin(folder: Location, content: str) -> None:
    """Mark the folder as ours, and delete what an interrupted export left in it. Raises InputError for a folder that
    holds anything else."""
    there = [*folder.children(), *folder.folders()]
    if there and STARTED_FILE not in there:
        raise InputError(f"{folder}: holds {min(there)!r}, which is no export of labels; give a new or empty folder")
    (folder / STARTED_FILE).write_json({"content": content})
    for name in (name for name in there if _OWN.fullmatch(name) and name != STARTED_FILE):
        (folder / name).delete()


def _log_some(log: Log, left_out: list[str]) -> None:
    for reason in left_out[:MOST_LINES]:
        log(f"left out: {reason}")
    if len(left_out) > MOST_LINES:
        log(f"... and {len(left_out) - MOST_LINES:,} more are left out")
