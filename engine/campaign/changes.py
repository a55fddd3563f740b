"""Shards that changed since they were listed: each is read once, and all goes on with what is in it now.

A shard that is only copied or touched keeps its version, and with it its scores. In one with other bytes the labelled
and picked images are found again by their content; those that are gone are named, and are neither trained on nor handed
out. Every stage that reads the pool begins here.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import Campaign, is_complete, round_home
from engine.campaign.freshness import fingerprint
from engine.campaign.handed_out import left_out, picked_items
from engine.campaign.labels import identities, read_snapshot
from engine.campaign.manifests import Manifest
from engine.campaign.places import known_of, read_moved, write_moved
from engine.campaign.positions import all_positions, positions_with
from engine.campaign.scored_shards import file_name
from engine.campaign.stages import Log
from engine.config.input_options import ImageConfig
from engine.config.texts import plural
from engine.errors import InputError, UnreadableError
from engine.pool.identity import content_hash
from engine.pool.items import read_shard
from engine.pool.manifest import look_up, look_up_few, new_version, read_shards, write_shards
from engine.pool.shard import ChangedShardError, Place, Shard, ShardError, current
from engine.pool.shards import Shards
from engine.storage.documents import read_document
from engine.storage.location import Location
from engine.tables.item_keys import are_in, rows_of_items

SCAN_THREADS = 8
MOST_LINES = 10
"""Logged lines of one kind, at most."""


class ScoredRound(NamedTuple):
    """A round's scores: its folder, the key in the names of its files, and the files that are there."""

    home: Location
    key: str
    files: frozenset[str]


class Finding(NamedTuple):
    """A shard's new row, whether its bytes are the same, and its rows of MOVED_SCHEMA; None: those that it had."""

    shard: Shard
    is_same: bool
    moved: list[tuple[Any, ...]] | None
    num_wanted: int


@contextmanager
def current_shards(campaign: Campaign, log: Log, only: Set[str] | None = None) -> Iterator[Shards]:
    """Every shard that ever was in the pool, as it is now. One that the body finds changed all the same is read
    again the next time.

    `only`: see `refresh`.
    """
    try:
        yield refresh(campaign, log, only=only)
    except ChangedShardError as error:
        look_again(campaign.home, {error.url})
        raise


def look_again(home: Location, urls: set[str]) -> None:
    """Let the next stage read these shards again, also where their size and time stay the same."""
    shards = read_shards(home)
    is_it_N = pc.is_in(shards.table["url"], value_set=pa.array(sorted(urls), pa.string())).to_numpy()
    write_shards(home, shards.with_column("mtime_ns", np.where(is_it_N, 0, shards.times)))


def refresh(campaign: Campaign, log: Log, scores_key: str = "", only: Set[str] | None = None) -> Shards:
    """Every shard that ever was in the pool, as it is now; what changed is looked at, logged and saved. Those that left
    are looked at only where `only` names them: see `engine.pool.manifest.in_round`.

    Args:
        scores_key: the key in the names of the scores files that are being made; see `file_name`.
        only: the names of the shards that matter: the others are neither listed nor looked at.

    Raises InputError if the pool or the campaign's storage cannot be listed or read, or all of the pool is gone.
    """
    listed = read_shards(campaign.home).at_root(campaign.config.pool.root)
    matter = listed.in_round(campaign.round) if only is None else listed.where(listed.are_named(only))
    found = look_up(matter) if only is None else look_up_few(matter)
    if only is None:
        require_some(matter, found.are_there)
    # A shard that is gone keeps its entry: reading it fails with its name, and the others go on.
    others = matter.where(found.are_there & ~found.are_same(matter))
    if len(others):
        scored, wanted = scored_rounds(campaign, scores_key), _wanted(campaign, others.names)
        image, companion = campaign.config.image, campaign.config.embedding_member

        def look(before: Shard) -> Finding:
            # Scores do not say which embeddings they are of.
            digest = "" if companion else digest_of_scores(before, scored)
            return look_at(before, wanted.get(before.shard, []), digest, image, companion)

        with ThreadPoolExecutor(SCAN_THREADS) as threads:
            findings = list(threads.map(look, others))
        listed = listed.merged(finding.shard for finding in findings)
        _save_moved(campaign.home, findings)
        # The last: a run that was killed looks at the shards again.
        write_shards(campaign.home, listed)
        _log_changes(findings, log)
    _log_lost(campaign, log, only)
    return listed


def require_some(listed: Shards, are_there: NDArray[np.bool_]) -> None:
    """Raises InputError if no shard of the pool is there: it has moved, or its storage is away."""
    if len(listed) and not are_there.any():
        raise InputError(
            f"{listed[0].url}: gone, and so are all {len(listed):,} shards of the pool; restore them, or if the pool "
            "moved, repeat the command with --set pool.root=FOLDER"
        )


def log_some(log: Log, lines: list[str]) -> None:
    """Log the first lines, and how many more there are."""
    for line in lines[:MOST_LINES]:
        log(line)
    if len(lines) > MOST_LINES:
        log(f"... and {len(lines) - MOST_LINES:,} more")


def _wanted(campaign: Campaign, shards: pa.ChunkedArray) -> dict[str, list[Place]]:
    """Every labelled or picked image of these shards, at the place where it was labelled or picked."""
    found: dict[str, set[Place]] = defaultdict(set)
    for table in (all_positions(campaign.home), *_picked(campaign)):
        is_wanted = pc.is_in(table["shard"].cast(pa.string()), value_set=shards)
        for row in table.select(["shard", *Place._fields]).filter(is_wanted).to_pylist():
            found[row.pop("shard")].add(Place(**row))
    return {shard: list(places) for shard, places in found.items()}


def _picked(campaign: Campaign) -> list[pa.Table]:
    """Everything picked so far, also what its batch does not hold: another batch of the selection may."""
    return [picked_items(campaign.home, before=campaign.round + 1), left_out(campaign.home, campaign.round)]


def scored_rounds(campaign: Campaign, scores_key: str) -> list[ScoredRound]:
    """The rounds that were scored, newest first, and the one that is being scored."""
    homes = [round_home(campaign.home, number) for number in range(campaign.round, -1, -1)]
    keys = {home: _inputs_key(home) for home in homes} | ({campaign.round_home: scores_key} if scores_key else {})
    return [ScoredRound(home, key, frozenset((home / "scores").children())) for home, key in keys.items() if key]


def _inputs_key(home: Location) -> str:
    folder = home / "scores"
    return fingerprint(**read_document(folder / "manifest.json", Manifest)["inputs"]) if is_complete(folder) else ""


def digest_of_scores(shard: Shard, scored: list[ScoredRound]) -> str:
    """The digest of a shard's items from its scores and quarantine files; empty where its bytes were never scored."""
    for folder, key, files in scored:
        if (name := file_name(shard, key)) in files:
            try:
                return _digest(sorted(_committed(folder, name)))
            except UnreadableError:
                raise
            except InputError:
                # Scoring names the damaged file and makes it again.
                continue
    return ""


def _committed(folder: Location, name: str) -> Iterator[tuple[int, str, str]]:
    quarantine = folder / "quarantine" / name
    files = [folder / "scores" / name, *([quarantine] if quarantine.exists() else [])]
    for table in (file.read_table(["offset", "key", "content_hash"]) for file in files):
        for offset, key, found in zip(*(column.to_pylist() for column in table.columns), strict=True):
            yield offset, key, found or ""


def _digest(items: Iterable[tuple[int, str, str]]) -> str:
    """A hash of (offset, key, content hash) of every item in archive order; "" for one without an image."""
    digest = hashlib.blake2b(digest_size=16)
    for offset, key, found in items:
        digest.update(f"{offset}\0{key}\0{found}\n".encode())
    return digest.hexdigest()


def look_at(before: Shard, places: list[Place], scored: str, image: ImageConfig, companion: str = "") -> Finding:
    """What a shard is now. It is read where something depends on its bytes, and the store has no mark to prove them."""
    now = current(before)
    if now.etag_or_mtime == before.etag_or_mtime and now.etag_or_mtime.startswith("etag:"):
        return Finding(now, True, None, 0)
    if not places and not scored and not companion:
        return Finding(new_version(now._replace(num_items=None)), False, [], 0)
    wanted = {place.key for place in places}
    found: dict[str, Place] = {}
    num_items = 0

    def items() -> Iterator[tuple[int, str, str]]:
        nonlocal num_items
        for item in read_shard(now, image, companion):
            num_items += 1
            hashed = content_hash(item.data) if item.data else ""
            if item.key in wanted:
                found[item.key] = Place(item.key, item.offset, item.size_bytes, hashed)
            yield item.offset, item.key, " ".join((hashed, *map(content_hash, item.companions)))

    try:
        version = _digest(items())
    except ShardError as error:
        # Looked at again by every stage, because the storage may have been away.
        unread = new_version(now._replace(num_items=None, mtime_ns=0))
        lost = [_moved_row(before.shard, place, None, f"cannot be read: {error}") for place in places]
        return Finding(unread, False, lost, len(places))
    is_same = version in (scored, before.version)
    moved = [_moved_row(before.shard, place, found.get(place.key)) for place in places]
    now = now._replace(num_items=num_items, version=before.version if is_same else version)
    return Finding(now, is_same, [row for row in moved if row], len(places))


def _moved_row(shard: str, place: Place, found: Place | None, fault: str = "") -> tuple[Any, ...]:
    """A row of MOVED_SCHEMA; empty for an image that is where it was."""
    known = (shard, place.key, place.content_hash)
    if place.content_hash is None and found:
        # An older campaign: where it was is all that is known of it.
        found = found._replace(content_hash=None) if found[:3] == place[:3] else None
    if found == place:
        return ()
    if found and found.content_hash == place.content_hash:
        return (*known, found.offset, found.size_bytes, None)
    return (*known, None, None, fault or ("has other bytes now" if found else "is not found in its shard any more"))


def _save_moved(home: Location, findings: list[Finding]) -> None:
    done = {finding.shard.shard for finding in findings if finding.moved is not None}
    before = read_moved(home)
    rows = [tuple(row.values()) for row in before if row["shard"] not in done]
    rows += [row for finding in findings for row in finding.moved or []]
    if rows or before:
        write_moved(home, rows)


def _log_changes(findings: list[Finding], log: Log) -> None:
    if num_same := sum(finding.is_same for finding in findings):
        log(f"{num_same:,} of the pool's shards have another time and the same bytes: nothing changes")
    lines = []
    for shard, is_same, moved, num_wanted in findings:
        found = plural(num_wanted - sum(bool(row[-1]) for row in moved or []), "labelled or picked image")
        again = f"; found again in it: {found}" if num_wanted else ""
        if not is_same:
            lines.append(f"{shard.url}: its bytes changed since it was listed; the next scoring scores it again{again}")
    log_some(log, lines)


def _log_lost(campaign: Campaign, log: Log, only: Set[str] | None) -> None:
    """Name the images that are in their shards no more, and have a label or wait for their first one."""
    rows = [row for row in read_moved(campaign.home) if row["fault"]]
    lost = {known_of(row): row["fault"] for row in rows if only is None or row["shard"] in only}
    if not lost:
        return
    snapshot = read_snapshot(campaign.home)
    items = rows_of_items(dict.fromkeys(known[:2] for known in lost))
    labelled = set(identities(items.filter(pa.array(are_in(items, snapshot.labels)))))
    decided = set(identities(items.filter(pa.array(are_in(items, snapshot.history)))))
    there = map(known_of, positions_with(campaign.home, items).to_pylist())
    still = {known for known in there if known[:2] in labelled}
    picked = [row for table in _picked(campaign) for row in table.filter(pa.array(are_in(table, items))).to_pylist()]
    still |= {known_of(row) for row in picked if (row["shard"], row["key"]) not in decided}
    lines = []
    for known, fault in lost.items():
        fix = "restore the shard" + (", or correct or retract the label" if known[:2] in labelled else "")
        lines.append(f"{known[0]}: item {known[1]} {fault}: it is neither trained on nor handed out; {fix}")
    log_some(log, [line for line, known in zip(lines, lost, strict=True) if known in still])
