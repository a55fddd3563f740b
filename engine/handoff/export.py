"""The handoff: the images of the picks, read from their shards by byte range, and a vendor's task files."""

import hashlib
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from engine.campaign.changes import current_shards
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import current_selection
from engine.campaign.manifests import Manifest, read_committed, read_manifest, write_manifest
from engine.campaign.places import placed
from engine.campaign.stages import DEFAULT_VENDOR, QUIET, Run
from engine.errors import InputError
from engine.handoff import TASK_COLUMNS, VENDORS
from engine.pool.formats import format_of
from engine.pool.shard import Place, Shard, check_unchanged, read_images
from engine.storage.location import Location
from engine.tables.selections import with_hash


def export(campaign: Campaign, run: Run = QUIET, *, vendor: str = DEFAULT_VENDOR) -> Manifest:
    """Complete the handoff for a vendor. Returns its manifest; a complete handoff is left alone.

    Tasks are in order of priority, the most valuable image first.

    Raises:
        InputError: there is no selection, or a shard changed meanwhile; then nothing is handed out.
        ConfigError: the options or inputs of the selection changed since it was made.
    """
    name = f"handoff/{vendor}"
    folder, selection = campaign.stage(name), current_selection(campaign)
    if is_complete(folder):
        return read_manifest(campaign, name, Manifest)
    with current_shards(campaign, run.log) as shards:
        tasks = _write_all(campaign, folder, {shard.shard: shard for shard in shards}, run)
    tasks.sort(key=lambda task: int(task["priority"]))
    return write_manifest(
        campaign,
        name,
        Manifest,
        inputs={"selection": selection["files"]["selection.parquet"]},
        counts={"images": len(tasks), "bytes": sum(task["bytes"] for task in tasks)},
        files=pkgutil.resolve_name(f"{VENDORS[vendor].module}:write_tasks")(folder, tasks),
    )


def describe(campaign: Campaign, manifest: Manifest) -> dict[str, Any]:
    """The facts about a complete stage that a person sees."""
    folder, tasks = campaign.stage(manifest["stage"]), next(iter(manifest["files"]), "")
    return {"images": manifest["counts"]["images"], "handoff": folder, "tasks": folder / tasks}


def _write_all(campaign: Campaign, folder: Location, shards: dict[str, Shard], run: Run) -> list[dict[str, Any]]:
    """Write the images of the picks. Those that are in their shards no more have been named, and are left out."""
    table = with_hash(read_committed(campaign.stage("selection"), "selection.parquet"))
    here, _ = placed(campaign.home, table)
    by_shard: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for pick in here.to_pylist():
        by_shard[pick["shard"]].append(pick)
    if not by_shard:
        raise InputError(f"{campaign.stage('selection')}: none of its images is in its shard; restore the shards")
    for shard in by_shard:
        check_unchanged(shards[shard])
    tasks: list[dict[str, Any]] = []
    for shard, wanted in sorted(by_shard.items()):
        contents = read_images(shards[shard], [Place(*(pick[name] for name in Place._fields)) for pick in wanted])
        for task in _write_images(folder, wanted, contents):
            tasks.append(task)
            run.on_progress(len(tasks) / len(here), f"{len(tasks)} of {len(here)} images")
    return tasks


def _write_images(folder: Location, picks: list[dict[str, Any]], contents: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for pick, content in zip(picks, contents, strict=True):
        form = format_of(content)
        if form is None:
            raise InputError(f"{pick['shard']}: item {pick['key']} is no longer an image; restore the shard")
        file = f"images/{pick['item_id']}.{form.suffixes[0]}"
        (folder / file).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        yield dict(zip(TASK_COLUMNS, (pick["item_id"], file, pick["rank"], len(content), sha256), strict=True))
