"""The files of a batch in its vendor's own format, and whether they are still there."""

import hashlib
import pkgutil
import random
from collections.abc import Callable, Iterable
from itertools import accumulate, chain

from engine.campaign.decisions import without_forgotten
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import IMAGES_FILE, SentBatch, read_refreshed
from engine.errors import InputError, UnreadableError
from engine.handoff import VENDORS
from engine.handoff.exchange import Outgoing
from engine.handoff.links import store_of
from engine.storage.location import Location

MOST_VERIFIED_BYTES = 256 << 20
"""So many bytes of the images in the vendor's folder are read to check them, in random images of a larger batch. The
names and sizes of all are checked. Bytes can be checked only by reading them: all of a batch would cost as much as
writing it, at every `vaal round`."""
INSTRUCTIONS_FILE = "instructions.txt"


def write_task_files(vendor: str, batch: Outgoing, *folders: Location) -> dict[str, str]:
    """Write the vendor's task files into each folder. Returns their SHA-256 by name."""
    write: Callable[[Outgoing], Iterable[tuple[str, bytes]]] = pkgutil.resolve_name(
        f"{VENDORS[vendor].module}:write_tasks"
    )
    text = batch.question.instructions
    instructions = [(INSTRUCTIONS_FILE, f"{text}\n".encode())] if text else []
    files: dict[str, str] = {}
    for name, content in chain(write(batch), instructions):
        files[name] = hashlib.sha256(content).hexdigest()
        for folder in folders:
            (folder / name).write_bytes(content)
    return files


def files_of(batch: SentBatch) -> dict[str, str]:
    """The SHA-256 of the task files of a batch by name, as its links are now."""
    files: dict[str, str] = (read_refreshed(batch.folder) or batch.manifest)["files"]
    return {name: sha256 for name, sha256 in files.items() if name != IMAGES_FILE}


def images_at(folder: Location, place: str) -> Location:
    """Where the images of a batch are written."""
    return store_of(place or "files") or folder / "images"


def is_intact(campaign: Campaign, batch: SentBatch) -> bool:
    """Whether the vendor's folder holds the batch: by names and sizes, and MOST_VERIFIED_BYTES of it by content. What
    was forgotten is not to be there, and of a batch that was forgotten whole nothing is."""
    folder, place = campaign.stage(f"handoff/{batch.vendor}"), batch.manifest["sending"]["place"]
    images = without_forgotten(campaign.home, batch.rows()).to_pylist()
    if not images:
        return True
    at, wanted = images_at(folder, place), {row["file"].partition("/")[2]: row["sent_bytes"] for row in images}
    there = at.children()
    if {name: there.get(name) for name in wanted} != wanted or (at == folder / "images" and len(there) > len(wanted)):
        return False
    files = {folder / name: sha256 for name, sha256 in files_of(batch).items()}
    # Others at every call.
    random.shuffle(images)
    ends = accumulate(row["sent_bytes"] for row in images)
    chosen = [row for row, end in zip(images, ends, strict=True) if end <= MOST_VERIFIED_BYTES]
    files |= {at / row["file"].partition("/")[2]: row["sha256"] for row in chosen}
    try:
        for file, sha256 in files.items():
            file.read_verified(sha256, "")
    except UnreadableError:
        raise
    except InputError:
        return False
    return True
