"""The handoff: the images of the picks, read from their shards by byte range, and a vendor's task files."""

import hashlib
import pkgutil
import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pyarrow as pa

from engine.campaign.changes import current_shards
from engine.campaign.folder import Campaign
from engine.campaign.freshness import current_selection
from engine.campaign.handed_out import (
    IMAGES_FILE,
    IMAGES_SCHEMA,
    RECORDS,
    SentBatch,
    batches,
    current_batches,
    picks_hash,
    vendor_of,
)
from engine.campaign.manifests import Manifest, SelectionManifest, read_committed, read_manifest, write_manifest
from engine.campaign.places import placed
from engine.campaign.stages import DEFAULT_VENDOR, QUIET, Run
from engine.errors import InputError, UnreadableError
from engine.handoff import TASK_COLUMNS, VENDORS
from engine.handoff.exchange import Outgoing, Question, Task
from engine.pool.formats import format_of
from engine.pool.identity import content_hash
from engine.pool.shard import Place, Shard, check_unchanged, read_images
from engine.storage.location import Location
from engine.tables.rows import Row
from engine.tables.selections import with_hash

MOST_VERIFIED_BYTES = 256 << 20
"""So many bytes of the images in the vendor's folder are read to check them, in random images of a larger batch. The
names and sizes of all are checked. Bytes can be checked only by reading them: all of a batch would cost as much as
writing it, at every `vaal round`."""


def export(campaign: Campaign, run: Run = QUIET, *, vendor: str = DEFAULT_VENDOR) -> Manifest:
    """Complete the handoff for a vendor. Returns the manifest of its record. A complete handoff is left alone, unless
    its files are damaged: then they are written again, and are the same batch.

    The vendor's folder then holds exactly this batch: what was in it is deleted first. Tasks are in order of priority,
    the most valuable image first.

    Raises:
        InputError: there is no selection, or a shard changed meanwhile; then nothing is handed out.
        ConfigError: the options or inputs of the selection changed since it was made.
    """
    out = [batch for batch in current_batches(campaign.home, campaign.round) if batch.vendor == vendor]
    if out:
        manifest = read_manifest(campaign, f"{RECORDS}/{out[-1].folder.name}", Manifest)
        if not _is_intact(campaign.stage(f"handoff/{vendor}"), out[-1], manifest):
            run.log(f"{campaign.stage(f'handoff/{vendor}')}: not the files of {out[-1].folder.name}; written again")
            _write(campaign, vendor, out[-1].images(), run)
        return manifest
    selection, folder = current_selection(campaign), campaign.stage(f"handoff/{vendor}")
    if (folder / "manifest.json").exists():
        run.log(f"{folder}: an earlier version handed it out; it is recorded now, so do not send it again")
    picks = with_hash(read_committed(campaign.stage("selection"), "selection.parquet"))
    tasks = _write(campaign, vendor, picks, run)
    if num_left := len(picks) - len(tasks):
        why = "are left out of the batch, because their shards do not hold them any more; a later round may pick them"
        run.log(f"{num_left} of {len(picks)} picks {why}")
    return _record(campaign, vendor, selection, picks, tasks)


def _write(campaign: Campaign, vendor: str, picks: pa.Table, run: Run) -> list[Row]:
    """Write the vendor's folder. Returns the tasks, the most valuable image first."""
    folder = campaign.stage(f"handoff/{vendor}")
    with current_shards(campaign, run.log) as shards:
        # Those that are in their shards no more have been named, and are left out.
        here, _ = placed(campaign.home, picks)
        if len(picks) and not len(here):
            raise InputError(f"{campaign.stage('selection')}: none of its images is in its shard; restore the shards")
        tasks = _write_all(folder, here, {shard.shard: shard for shard in shards}, run)
    tasks.sort(key=lambda task: int(task["priority"]))
    _write_tasks(vendor, folder, tasks)
    return tasks


def _is_intact(folder: Location, batch: SentBatch, manifest: Manifest) -> bool:
    """Whether the vendor's folder holds the batch: by names and sizes, and MOST_VERIFIED_BYTES of it by content."""
    images = batch.images().select(["file", "size_bytes", "sha256"]).to_pylist()
    if (folder / "images").children() != {row["file"].partition("/")[2]: row["size_bytes"] for row in images}:
        return False
    files = {name: sha256 for name, sha256 in manifest["files"].items() if name != IMAGES_FILE}
    # Others at every call.
    random.shuffle(images)
    ends = accumulate(row["size_bytes"] for row in images)
    files |= {row["file"]: row["sha256"] for row, end in zip(images, ends, strict=True) if end <= MOST_VERIFIED_BYTES}
    try:
        for name, sha256 in files.items():
            (folder / name).read_verified(sha256, "")
    except UnreadableError:
        raise
    except InputError:
        return False
    return True


def describe(campaign: Campaign, manifest: Manifest) -> dict[str, Any]:
    """The facts about a complete stage that a person sees."""
    folder = campaign.stage(f"handoff/{vendor_of(campaign.stage(manifest['stage']))}")
    tasks = next(iter(manifest["files"]), "")
    return {"images": manifest["counts"]["images"], "handoff": folder, "tasks": folder / tasks}


def _record(
    campaign: Campaign, vendor: str, selection: SelectionManifest, picks: pa.Table, tasks: list[Row]
) -> Manifest:
    """Record the batch in handed_out/. From its manifest on, the images are out."""
    name = f"{RECORDS}/{vendor}-{len(batches(campaign.home, campaign.round)):03d}"
    record, by_id = campaign.stage(name), {pick["item_id"]: pick for pick in picks.to_pylist()}
    images = pa.Table.from_pylist([by_id[task["item_id"]] | task for task in tasks], schema=IMAGES_SCHEMA)
    files = {**_write_tasks(vendor, record, tasks), IMAGES_FILE: (record / IMAGES_FILE).write_table(images)}
    if current_selection(campaign) != selection:
        fix = f"run: vaal export {campaign.home}"
        raise InputError(f"{campaign.stage('selection')}: made again while it was exported; {fix}")
    return write_manifest(
        campaign,
        name,
        Manifest,
        inputs={"selection": selection["files"]["selection.parquet"], "picks": picks_hash(picks)},
        counts={"images": len(tasks), "bytes": sum(task["bytes"] for task in tasks)},
        files=files,
    )


def _write_tasks(vendor: str, folder: Location, tasks: list[Row]) -> dict[str, str]:
    """A vendor's task files. Returns their SHA-256 by name."""
    out = [
        Task(task["item_id"], task["file"], task["file"], task["priority"], task["bytes"], task["sha256"], "", 0, 0)
        for task in tasks
    ]
    batch = Outgoing("", Question("class", []), 1, out)
    files = pkgutil.resolve_name(f"{VENDORS[vendor].module}:write_tasks")(batch)
    return {name: (folder / name).write_bytes(content) for name, content in files}


def _write_all(folder: Location, picks: pa.Table, shards: dict[str, Shard], run: Run) -> list[Row]:
    """Write the images of the picks into an empty folder, and nothing where a shard changed."""
    by_shard: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for pick in picks.to_pylist():
        by_shard[pick["shard"]].append(pick)
    for shard in by_shard:
        check_unchanged(shards[shard])
    folder.clear()
    tasks: list[Row] = []
    for shard, wanted in sorted(by_shard.items()):
        contents = read_images(shards[shard], [Place(*(pick[name] for name in Place._fields)) for pick in wanted])
        for task in _write_images(folder, wanted, contents):
            tasks.append(task)
            run.on_progress(len(tasks) / len(picks), f"{len(tasks)} of {len(picks)} images")
    return tasks


def _write_images(folder: Location, picks: list[dict[str, Any]], contents: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """Yields the tasks, each with the hash of the bytes that the vendor sees."""
    for pick, content in zip(picks, contents, strict=True):
        form = format_of(content)
        if form is None:
            raise InputError(f"{pick['shard']}: item {pick['key']} is no longer an image; restore the shard")
        file = f"images/{pick['item_id']}.{form.suffixes[0]}"
        (folder / file).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        task = dict(zip(TASK_COLUMNS, (pick["item_id"], file, pick["rank"], len(content), sha256), strict=True))
        yield task | {"content_hash": content_hash(content)}
