"""What may go from a campaign: nothing that a later round, an answer, the present round's pages or the ledger needs."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from engine.campaign.folder import Campaign, is_complete, round_home
from engine.campaign.manifests import RESCORES, ScoresManifest, read_manifest
from engine.campaign.scored_shards import shard_records
from engine.config.texts import plural
from engine.storage.location import Location

CHECKPOINTS = "train/checkpoint"
CLEANED_FILE = "cleaned.json"
"""In the folder of scores of which the files were deleted, but for the manifest: they are missing on purpose."""
SCORED = ("scores", "quarantine")
_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}")


class Waste(NamedTuple):
    """Files in a folder that may go, by name with their bytes, and why. `is_whole`: the folder goes with them."""

    folder: Location
    files: dict[str, int]
    why: str
    is_whole: bool = False

    @property
    def num_bytes(self) -> int:
        return sum(self.files.values())


def waste_of(campaign: Campaign, scores_older_than: int | None = None) -> list[Waste]:
    """What may go, round by round. `scores_older_than`: also the scores of rounds that are more than so many rounds
    before the present one, at least 1.

    Raises InputError if a manifest or the storage cannot be read.
    """
    found = []
    for number in range(campaign.round + 1):
        home = round_home(campaign.home, number)
        found += [*_checkpoints(home), *_drafts(home)]
        is_old = scores_older_than is not None and number < campaign.round - scores_older_than
        of_round = replace(campaign, round=number)
        found += _old_scores(home, scores_older_than or 0) if is_old else _replaced_scores(of_round)
    found += [waste for name in ("labels", "votes", "decisions", "pool") for waste in _drafts(campaign.home / name)]
    return [waste for waste in found if waste.files]


def remove(waste: Waste) -> None:
    """Delete what may go. May be interrupted, and called again. Raises StorageError if the storage refuses."""
    if waste.why.startswith(_OLD):
        # The first: what is missing from now on is missing on purpose.
        (waste.folder / CLEANED_FILE).write_json({"files": len(waste.files), "bytes": waste.num_bytes})
    if waste.is_whole:
        waste.folder.remove()
        return
    for name in waste.files:
        (waste.folder / name).delete()


_OLD = "scores of a round that ended"


def _checkpoints(home: Location) -> Iterator[Waste]:
    """The checkpoints of a training that is complete: nothing goes on from them."""
    folder = home / CHECKPOINTS
    if is_complete(home / "train") and (files := _all_files(folder)):
        yield Waste(folder, files, "checkpoints of a training that is complete", is_whole=True)


def _drafts(home: Location) -> Iterator[Waste]:
    """What interrupted writes left: nobody writes while this runs."""
    for folder in _folders(home):
        # Other programs hide files too.
        names = [name for name in folder.drafts() if _DRAFT.fullmatch(name)]
        sizes = {name: (folder / name).info().size or 0 for name in names}
        if names:
            yield Waste(folder, sizes, "left by writes that were interrupted")


def _replaced_scores(campaign: Campaign) -> Iterator[Waste]:
    """Scores that a later scoring of the round replaced, with other weights or another shard."""
    if not is_complete(campaign.stage("scores")):
        # Which of them a run goes on from is for it to say.
        return
    manifest = read_manifest(campaign, "scores", ScoresManifest)
    named = set(shard_records(campaign, manifest, ["file"])["file"].to_pylist())
    for name in SCORED:
        children = campaign.stage(name).children()
        files = {file: size for file, size in children.items() if file.endswith(".parquet") and file not in named}
        yield Waste(campaign.stage(name), files, "replaced when the round was scored again")


def _old_scores(home: Location, rounds: int) -> Iterator[Waste]:
    why = f"{_OLD} more than {plural(rounds, 'round')} ago (--scores-older-than)"
    for name in ("scores", RESCORES):
        files = {file: size for file, size in (home / name).children().items() if file.endswith(".parquet")}
        yield Waste(home / name, files, why)


def _folders(folder: Location) -> Iterator[Location]:
    """The folder and all below it."""
    yield folder
    for name in folder.folders():
        yield from _folders(folder / name)


def _all_files(folder: Location) -> dict[str, int]:
    """All files below a folder by their path in it, with their bytes."""
    begin = len(folder.url) + 1
    found: dict[str, int] = {}
    for place in _folders(folder):
        prefix = f"{place.url[begin:]}/" if place != folder else ""
        found |= {f"{prefix}{name}": size for name, size in place.children().items()}
        found |= {f"{prefix}{name}": (place / name).info().size or 0 for name in place.drafts()}
    return found
