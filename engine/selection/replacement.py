"""A selection that was handed out and is made again: the old one is recorded first, and its picks stay out."""

from contextlib import suppress

from engine.campaign.folder import Campaign
from engine.campaign.manifests import Manifest
from engine.campaign.outstanding import replaced
from engine.campaign.stages import STAGES
from engine.storage.documents import read_document
from engine.storage.location import Location


def replace(campaign: Campaign) -> None:
    """Reopen the selection and the stages that depend on it. What was handed out is recorded in selection/replaced/,
    with its task lists; its images stay in the handoff folder until they are overwritten.

    A call that is killed and repeated has the same result.
    """
    if campaign.completed("handoff"):
        _record(campaign, campaign.stage("selection"))
    names = [stage.name for stage in STAGES]
    # The selection comes last: no stage may be complete that depends on another selection.
    for name in reversed(names[names.index("selection") :]):
        for folder in campaign.completed(name):
            with suppress(FileNotFoundError):
                (folder / "manifest.json").delete()


def _record(campaign: Campaign, folder: Location) -> None:
    content = (folder / "manifest.json").read_bytes()
    kept = list(replaced(campaign.home, campaign.round))
    if kept and (kept[-1] / "manifest.json").read_bytes() == content:
        return
    new = folder / f"replaced/{len(kept):03d}"
    for handoff in campaign.completed("handoff"):
        _copy(handoff, new / "handoff" / handoff.name)
    # This copies the manifest last: without it, nothing is recorded.
    _copy(folder, new)


def _copy(source: Location, target: Location) -> None:
    manifest = (source / "manifest.json").read_bytes()
    for name, sha256 in read_document(source / "manifest.json", Manifest)["files"].items():
        content = (source / name).read_verified(
            sha256, "restore the files that were handed out before you replace them"
        )
        (target / name).write_bytes(content)
    (target / "manifest.json").write_bytes(manifest)
