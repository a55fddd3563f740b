"""The vendor-neutral handoff: the images, and the tasks as CSV and JSON lines, under opaque item_ids."""

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from engine.campaign.folder import Campaign, is_complete, read_manifest, write_manifest
from engine.pool.manifest import check_unchanged, read_ranges, read_shards
from engine.selection.select import current_selection
from engine.storage.location import Location

TASK_COLUMNS = ("item_id", "file", "priority", "bytes", "sha256")
_MAGIC = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"))


def export(campaign: Campaign, on_image: Callable[[int, int], None]) -> dict[str, Any]:
    """Read the picked images from their shards by byte range and complete the handoff. Returns its manifest.

    Tasks are in order of priority, the most valuable image first. `on_image(done, in all)` is called as it goes on.

    Raises:
        InputError: there is no selection, or a shard has changed since init; nothing is handed out then.
    """
    folder = campaign.stage("handoff/generic")
    selection = current_selection(campaign)
    if is_complete(folder):
        return read_manifest(folder, "export")
    picks = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    by_shard: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for pick in picks:
        by_shard[pick["shard"]].append(pick)
    shards = {shard.shard: shard for shard in read_shards(campaign.home)}
    for name in by_shard:
        check_unchanged(shards[name])
    tasks = []
    for name, wanted in sorted(by_shard.items()):
        contents = read_ranges(shards[name], [(pick["offset"], pick["size_bytes"]) for pick in wanted])
        for task in _write_images(folder, wanted, contents):
            tasks.append(task)
            on_image(len(tasks), len(picks))
    tasks.sort(key=lambda task: int(task["priority"]))
    files = {
        "tasks.csv": (folder / "tasks.csv").write_bytes(_to_csv(tasks)),
        "tasks.jsonl": (folder / "tasks.jsonl").write_bytes(
            "".join(json.dumps(task) + "\n" for task in tasks).encode()
        ),
    }
    return write_manifest(
        folder,
        campaign,
        inputs={"selection": selection["files"]["selection.parquet"]},
        counts={"images": len(tasks), "bytes": sum(task["bytes"] for task in tasks)},
        files=files,
    )


def _write_images(folder: Location, picks: list[dict[str, Any]], contents: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for pick, content in zip(picks, contents, strict=True):
        suffix = next(suffix for magic, suffix in _MAGIC if content.startswith(magic))
        file = f"images/{pick['item_id']}.{suffix}"
        (folder / file).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        yield dict(zip(TASK_COLUMNS, (pick["item_id"], file, pick["rank"], len(content), sha256), strict=True))


def _to_csv(tasks: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, TASK_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tasks)
    return text.getvalue().encode()
