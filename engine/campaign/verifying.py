"""Whether every committed file of a campaign is still what was committed. Nothing is changed."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from engine.campaign.cleaning import CLEANED_FILE
from engine.campaign.decisions import DECISIONS_SCHEMA
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.handed_out import RECORDS, read_refreshed
from engine.campaign.labels import LABELS_SCHEMA, POSITIONS_SCHEMA
from engine.campaign.manifests import RESCORES, Manifest, ScoresManifest, read_manifest
from engine.campaign.scored_shards import shard_records
from engine.campaign.votes import VOTES_SCHEMA
from engine.errors import VaalError
from engine.storage.documents import read_document
from engine.storage.location import Location
from engine.tables.score_reader import fix_of
from engine.tables.scores import QUARANTINE_SCHEMA, ShardRecord
from engine.tables.shard_records import records_in

THREADS = 8
ADDED = {"labels": LABELS_SCHEMA, "votes": VOTES_SCHEMA, "decisions": DECISIONS_SCHEMA, "pool/items": POSITIONS_SCHEMA}
"""Folders that are only added to, and the columns of their files."""
_FIX = "restore it from a copy"


class Verified(NamedTuple):
    """How many files were looked at, and a line for each fault, which names the file."""

    num_files: int
    faults: list[str]


Check = Callable[[], str]
"""Looks at a file. Returns its fault, "" for none."""


def verify(campaign: Campaign, on_progress: Callable[[float], None] = lambda _share: None) -> Verified:
    """Read every committed file, and compare it with the SHA-256 that a manifest names, or else with its columns.

    A file is read once, in pieces, and a few at a time. What `vaal clean` deleted is not missed.
    """
    checks, faults = list[Check](), list[str]()
    named: dict[str, set[str]] = {}
    for number in range(campaign.round + 1):
        of_round = replace(campaign, round=number)
        for folder in _stages(of_round.round_home):
            try:
                manifest: Any = read_document(folder / "manifest.json", Manifest)
                checks += _of_stage(of_round, folder, manifest)
            except VaalError as error:
                faults.append(str(error))
                continue
            for name, digest in manifest["inputs"].items():
                if name.startswith("labels/"):
                    named.setdefault(name, set()).add(digest)
    for name in sorted(named.keys() - {f"labels/{file}" for file in (campaign.home / "labels").children()}):
        faults.append(f"{campaign.home / name}: missing; a stage was made with it; {_FIX}")
    for folder_name, schema in ADDED.items():
        for file in (campaign.home / folder_name).children():
            name = f"{folder_name}/{file}"
            checks.append(partial(_of_added, campaign.home / name, schema, named.get(name, set())))
    with ThreadPoolExecutor(THREADS) as threads:
        for done, fault in enumerate(threads.map(lambda check: check(), checks), 1):
            faults += [fault] if fault else []
            on_progress(done / len(checks))
    return Verified(len(checks), faults)


def _stages(home: Location) -> Iterator[Location]:
    """The folders of a round that have a manifest."""
    records = home / RECORDS
    folders = [home / name for name in ("train", "scores", RESCORES, "selection", "report")]
    for folder in [*folders, *(records / name for name in records.folders())]:
        if is_complete(folder):
            yield folder


def _of_stage(campaign: Campaign, folder: Location, manifest: Any) -> Iterator[Check]:
    """The checks of the files that a manifest names."""
    is_cleaned = (folder / CLEANED_FILE).exists()
    # Where the links of a batch were signed again, these are the hashes since.
    files = manifest["files"] | read_refreshed(folder).get("files", {})
    for name, digest in files.items():
        yield partial(_of_file, folder / name, {digest}, may_be_gone=is_cleaned)
    if folder.name != "scores":
        return
    for record in records_in(shard_records(campaign, read_manifest(campaign, "scores", ScoresManifest))):
        # The whole file, where a selection is content with the pages that it reads.
        fix = fix_of(folder / record.file, "restore it from a copy, or delete it and")
        yield partial(_of_file, folder / record.file, {record.sha256}, may_be_gone=is_cleaned, fix=fix)
        if record.quarantined:
            yield partial(_of_quarantine, campaign.stage("quarantine") / record.file, record)


def _of_file(file: Location, digests: set[str], *, may_be_gone: bool = False, fix: str = _FIX) -> str:
    try:
        with file.filesystem.open_input_stream(file.path) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return "" if may_be_gone else f"{file}: missing; {fix}"
    except OSError as error:
        return str(file.unreadable(error))
    return "" if digest in digests else f"{file}: not the file that was committed (its SHA-256 differs); {fix}"


def _of_quarantine(file: Location, record: ShardRecord) -> str:
    """No manifest has its hash; the number of its rows is known."""
    try:
        rows = len(file.read_typed_table(QUARANTINE_SCHEMA))
    except VaalError as error:
        return str(error)
    # A shard that failed as a whole has a row for itself.
    wanted = 1 if record.failure else record.quarantined
    return "" if rows == wanted else f"{file}: {rows:,} rows, and {wanted:,} were committed; {_FIX}"


def _of_added(file: Location, schema: pa.Schema, digests: set[str]) -> str:
    """Of a file that is only added to: its hash, if a stage was made with it; else that it can be read."""
    if digests and (fault := _of_file(file, digests)):
        return fault
    try:
        file.read_typed_table(schema)
    except VaalError as error:
        return str(error)
    return ""
