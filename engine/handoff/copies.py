"""The copies of images in a campaign's folder and at the places where batches were put: found by name, and deleted."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.handed_out import SentBatch
from engine.campaign.labels import Identity, identities
from engine.campaign.manifests import Manifest
from engine.campaign.votes import read_votes
from engine.errors import ConfigError, VaalError
from engine.handoff.gold import gold_name
from engine.handoff.links import store_of
from engine.handoff.masks import masks_of
from engine.pool.identity import item_id_of
from engine.pool.mask_source import KEPT
from engine.storage.documents import read_document
from engine.storage.location import Location


class Erased(NamedTuple):
    """The URLs of what was deleted, and in words what could not be."""

    deleted: list[str]
    left: list[str]


def erase(campaign: Campaign, wanted: set[Identity], batches: list[SentBatch], decided_at: datetime) -> Erased:
    """Delete the copies of images in handoffs, their masks, and the reports that may show them, which can be made
    again. It looks for what is there, so that it can be repeated.

    Args:
        decided_at: reports that were made later do not show the images.
    """
    names = _names_of(campaign, wanted, batches)
    places = {batch.manifest["sending"]["place"] for batch in batches} | {campaign.config.handoff.images}
    stores = [store for place in sorted(places) if place and (store := _store(place))]
    files = _handoff_images(campaign, names)
    unreachable = []
    for store in stores:
        try:
            files += _named(store, names)
        except VaalError as error:
            # All else is deleted meanwhile.
            unreachable.append(f"the copies below {store}: {error}")
    masks, shared = _masks(campaign, names)
    for file in [*files, *masks]:
        file.delete()
    reports = [file for report in _old_reports(campaign, decided_at) for file in _cleared(report)]
    left = [f"a mask that other images have too: {mask}" for mask in shared]
    left += unreachable
    left += [f"the copies below {place}, which you serve: delete them there" for place in sorted(places) if _web(place)]
    return Erased([file.url for file in [*files, *masks, *reports]], left)


def _names_of(campaign: Campaign, wanted: set[Identity], batches: list[SentBatch]) -> set[str]:
    """All names for vendors that these images have, or that an export that was interrupted may have given them."""
    salt = campaign.config.salt
    names = {item_id_of(*item, salt) for item in wanted}
    for batch in batches:
        rows = batch.rows()
        pairs = zip(rows["item_id"].to_pylist(), identities(rows), strict=True)
        names |= {item_id for item_id, item in pairs if item in wanted}
    for number, vendor, _ in _handoffs(campaign):
        # A record is named by the number of batches that were out before it.
        num_out = sum(batch.manifest["round"] == int(number) for batch in batches)
        record = f"rounds/{number}/handed_out/{vendor}-{num_out:03d}"
        names |= {gold_name(salt, record, *item) for item in wanted}
    return names


def _handoffs(campaign: Campaign) -> Iterator[tuple[str, str, Location]]:
    """Round, vendor and folder of every handoff."""
    rounds = campaign.home / "rounds"
    for number in rounds.folders():
        handoff = rounds / f"{number}/handoff"
        yield from ((number, vendor, handoff / vendor) for vendor in handoff.folders())


def _handoff_images(campaign: Campaign, names: set[str]) -> list[Location]:
    return [file for _, _, folder in _handoffs(campaign) for file in _named(folder / "images", names)]


def _named(folder: Location, names: set[str]) -> list[Location]:
    """The files of a folder that are of these images, also those that an interrupted write left."""
    there = [*folder.children(), *folder.drafts()]
    return [folder / name for name in there if name.lstrip(".").partition(".")[0] in names]


def _store(place: str) -> Location | None:
    try:
        return store_of(place)
    except ConfigError:
        # An option that is not one now wrote nothing.
        return None


def _web(place: str) -> bool:
    return place.startswith(("https://", "http://"))


def _masks(campaign: Campaign, names: set[str]) -> tuple[list[Location], list[Location]]:
    """The masks of the votes on these images that are there: those of no other image, and those of others too."""
    votes = read_votes(campaign.home)
    own, others = set[str](), set[str]()
    for item_id, value in zip(votes["item_id"].to_pylist(), votes["value"].to_pylist(), strict=True):
        (own if item_id in names else others).update(masks_of(value))
    there = {f"{KEPT}/{name}" for name in (campaign.home / KEPT).children()}
    found = [[campaign.home / name for name in sorted(some & there)] for some in (own - others, own & others)]
    return found[0], found[1]


def _old_reports(campaign: Campaign, decided_at: datetime) -> Iterable[Location]:
    """The reports that were made before, and what an interruption left of others."""
    rounds = campaign.home / "rounds"
    for number in rounds.folders():
        report = rounds / f"{number}/report"
        if is_complete(report):
            made_at = datetime.fromisoformat(read_document(report / "manifest.json", Manifest)["completed_at"])
            # Its moment is in whole seconds.
            if made_at > decided_at:
                continue
        yield report


def _cleared(folder: Location) -> list[Location]:
    """Delete a stage. Returns its files."""
    files = [folder / name for name in [*folder.children(), *folder.drafts()]]
    if is_complete(folder):
        # The first: without it the stage is made again.
        (folder / "manifest.json").delete()
    folder.clear()
    return files
