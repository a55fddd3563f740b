"""A selection that was handed out and is then made anew: the old one is recorded first, and its picks stay out."""

import hashlib
import json
from contextlib import suppress

from engine.campaign.folder import HANDOFFS, Campaign, is_complete
from engine.errors import InputError
from engine.storage.location import Location
from engine.tables.selections import replaced


def is_handed_out(campaign: Campaign) -> bool:
    """Whether the round's images were exported for any vendor."""
    return any(is_complete(campaign.stage(name)) for name in HANDOFFS)


def replace(campaign: Campaign) -> None:
    """Open the selection again, and the stages that follow from it. What was handed out is recorded below
    selection/replaced/ with its task lists; its images stay in the handoff folder until they are written over.

    Killed on the way and called again, it ends the same.
    """
    folder = campaign.stage("selection")
    if is_handed_out(campaign):
        _record(campaign, folder)
    # The selection last: nothing may be complete that follows from another one.
    for name in ("report", *HANDOFFS, "selection"):
        with suppress(FileNotFoundError):
            (campaign.stage(name) / "manifest.json").delete()


def _record(campaign: Campaign, folder: Location) -> None:
    content = (folder / "manifest.json").read_bytes()
    kept = list(replaced(campaign.home, campaign.round))
    if kept and (kept[-1] / "manifest.json").read_bytes() == content:
        return
    new = folder / f"replaced/{len(kept):03d}"
    for name in HANDOFFS:
        source = campaign.stage(name)
        if is_complete(source):
            _copy(source, new / name, [*(source / "manifest.json").read_json()["files"], "manifest.json"])
    # Its own manifest last: without it, nothing is recorded.
    _copy(folder, new, [*json.loads(content)["files"], "manifest.json"])


def _copy(source: Location, target: Location, names: list[str]) -> None:
    files = (source / "manifest.json").read_json()["files"]
    for name in names:
        content = (source / name).read_bytes()
        if name in files and hashlib.sha256(content).hexdigest() != files[name]:
            raise InputError(f"{source / name}: not the file that was handed out; restore it before it is replaced")
        (target / name).write_bytes(content)
