"""Taking back an ingest, a correction, or a decision never to pick images: by appending, as everything here."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.changes import look_again
from engine.campaign.corrections import FORGET, correction_row, round_of
from engine.campaign.decisions import FOLDER as DECISIONS
from engine.campaign.decisions import MAY_PICK, NEVER_PICK, USER, Author, decide, never_picked
from engine.campaign.folder import Campaign
from engine.campaign.labels import (
    INGEST,
    INITIAL,
    PLACES,
    REPLACED,
    VOTES,
    Identity,
    Snapshot,
    append_labels,
    identities,
    read_snapshot,
)
from engine.campaign.positions import earlier_positions, write_positions
from engine.campaign.votes import files_of_votes, read_votes
from engine.config.texts import plural
from engine.errors import InputError
from engine.pool.manifest import read_shards
from engine.storage.location import Location

MOST_NAMED = 20
"""Files in an error."""


def undo(campaign: Campaign, name: str = "", author: Author = USER) -> tuple[str, int]:
    """Take back the last ingest of all, or the named one, or the named file of a correction: each item is what it is
    without it. The votes of an ingest stay, and do not count any more. Of a named decision never to pick images, they
    may be.

    Items that were corrected since stay, and what was undone before stays undone. Returns the name of the file, and the
    number of items.

    Raises InputError where there is no such file, or nothing of it counts any more.
    """
    snapshot = read_snapshot(campaign.home)
    folder, _, name = name.removeprefix(f"{campaign.home}/").removesuffix(".parquet").rpartition("/")
    if f"-{FORGET}-" in name:
        raise InputError(f"{campaign.home}: {name}: what was forgotten stays so; undo another file")
    if folder in ("", DECISIONS) and (kept_out := _kept_out_by(campaign.home, name)):
        return f"{name}.parquet", decide(campaign.home, MAY_PICK, kept_out, author)
    ingest = _ingest_of(campaign.home, snapshot, name, folder) if folder in ("", "votes", "labels") else ""
    if not ingest:
        wanted = _label_file(campaign, snapshot, name, folder)
        return wanted.removeprefix("labels/"), _take_back(campaign, snapshot, wanted, "", author)
    # The labels that were derived when it came; those that other votes give now are derived again.
    number = str(files_of_votes(campaign.home).index(f"{ingest}.parquet") + 1).encode()
    derived = [
        file
        for file, marks in snapshot.marks.items()
        if f"-{INGEST}-" in file and marks.get(VOTES) == number and file not in snapshot.undone
    ]
    num_labels = _take_back(campaign, snapshot, derived[0] if derived else "", ingest, author)
    votes = read_votes(campaign.home).filter(pc.field("ingest") == ingest)
    return f"{ingest}.parquet", num_labels if derived else pc.count_distinct(votes["item_id"]).as_py()


def _kept_out_by(home: Location, name: str) -> list[tuple[str, str, str, str | None]]:
    """The images that the named decision keeps from being picked, for a decision on them."""
    if not name.endswith(f"-{NEVER_PICK.replace(' ', '-')}") or f"{name}.parquet" not in (home / DECISIONS).children():
        return []
    gone = never_picked(home)
    rows = (home / DECISIONS / f"{name}.parquet").read_table().to_pylist()
    return [(row["item_id"], row["shard"], row["key"], None) for row in rows if (row["shard"], row["key"]) in gone]


def _ingest_of(home: Location, snapshot: Snapshot, name: str, folder: str) -> str:
    """The ingest with votes that a name says, its own or of its file of labels; without a name the last one; "" where
    there is none. Raises InputError where the last one is undone: whoever asks again, after a crash, wants no other."""
    ingests = [file.removesuffix(".parquet") for file in files_of_votes(home)]
    counting = [ingest for ingest in ingests if ingest not in snapshot.undone_votes]
    if not name and ingests:
        if ingests[-1] not in counting:
            fix = f"to undo an earlier one, name it; there are, newest last: {_newest(counting, MOST_NAMED)}"
            raise InputError(f"{home}: the last ingest, {ingests[-1]}, is undone already; {fix}")
        return ingests[-1]
    number = int(snapshot.marks.get(f"labels/{name}.parquet", {}).get(VOTES, 0)) if f"-{INGEST}-" in name else 0
    asked = ingests[number - 1] if number and folder != "votes" else name if folder != "labels" else ""
    return asked if asked in counting else ""


def _newest(names: list[str], most: int) -> str:
    earlier = len(names) - most
    return ", ".join([*([plural(earlier, "earlier one")] if earlier > 0 else []), *names[-most:]]) or "none"


def _can_be_undone(home: Location, snapshot: Snapshot, counting: dict[str, set[Identity]]) -> str:
    """The files of votes, labels and decisions that can be undone, as their names can be given: newest last."""
    undone = snapshot.undone_votes
    votes = [f"votes/{name}" for name in files_of_votes(home) if name.removesuffix(".parquet") not in undone]
    # Labels that follow from votes are undone by their ingest.
    derived = {name for name, marks in snapshot.marks.items() if f"-{INGEST}-" in name and int(marks.get(VOTES, 0))}
    kept = [name for name in counting if f"-{FORGET}-" not in name and f"/{INITIAL}." not in name]
    labels = [name for name in kept if counting[name] and name not in derived]
    names = (home / DECISIONS).children()
    decisions = [f"{DECISIONS}/{name}" for name in sorted(names) if _kept_out_by(home, name.removesuffix(".parquet"))]
    found = [_newest(names, MOST_NAMED // 3) for names in (votes, labels, decisions) if names]
    return f", newest last: {'; '.join(found)}" if found else ": none"


def _label_file(campaign: Campaign, snapshot: Snapshot, name: str, folder: str) -> str:
    """The file of labels to take back. Raises InputError as `undo`."""
    counting = _counting(snapshot)
    files = [file for file in snapshot.tables if counting[file] and (name or f"-{INGEST}-" in file)]
    wanted = f"{folder or 'labels'}/{name}.parquet" if name else next(reversed(files), "")
    if wanted not in files:
        there = _can_be_undone(campaign.home, snapshot, counting)
        given = f"{folder}/{name}.parquet".lstrip("/")
        what = (
            f"file {given!r} of votes/, labels/ or decisions/ whose rows count" if name else "ingest whose labels count"
        )
        raise InputError(f"{campaign.home}: no {what}; there are{there}")
    return wanted


def _take_back(campaign: Campaign, snapshot: Snapshot, wanted: str, ingest: str, author: Author) -> int:
    """Append what each item of a label file is without it. Returns the number of items."""
    live = {file: table for file, table in snapshot.tables.items() if file not in {wanted, *snapshot.undone}}
    before = {item: (file, row) for file, table in live.items() for item, row in _by_identity(table)}
    words = _replaced_by(snapshot, wanted) if wanted else {}
    before |= words
    items = sorted(_counting(snapshot)[wanted] | words.keys()) if wanted else []
    rows = [
        tuple(before[item][1].values())
        if item in before
        else correction_row(item, None, round_of(campaign, snapshot, item), author)
        for item in items
    ]
    _restore_positions(campaign, {item: snapshot.marks[before[item][0]] for item in items if item in before})
    append_labels(campaign.home, "undo", rows, undoes=wanted, undoes_votes=ingest)
    return len(rows)


def _replaced_by(snapshot: Snapshot, wanted: str) -> dict[Identity, tuple[str, dict[str, Any]]]:
    """The file and row of each label of a person that a label file replaced, and that nobody but votes changed since.
    It counts again once that file is undone."""
    given: dict[Identity, tuple[str, dict[str, Any]]] = {}
    found: dict[Identity, tuple[str, dict[str, Any]]] = {}
    for file, table in snapshot.tables.items():
        if file in snapshot.undone:
            continue
        for item, row in _by_identity(table):
            if file == wanted and row["why"] == REPLACED and item in given:
                found[item] = given[item]
            elif f"-{INGEST}-" not in file or (row["why"] == REPLACED and item in found):
                found.pop(item, None)
            if f"-{INGEST}-" not in file:
                given.pop(item, None)
                if row["label"] is not None:
                    given[item] = file, row
    return found


def _restore_positions(campaign: Campaign, marks: dict[Identity, dict[bytes, bytes]]) -> None:
    """A label that comes back is that of the bytes that it was given to: `marks` of the files that they are from."""
    rows = earlier_positions(campaign.home, {item: int(found.get(PLACES, 0)) for item, found in marks.items()})
    if rows:
        write_positions(campaign.home, rows)
        names = {row[0] for row in rows}
        look_again(campaign.home, {shard.url for shard in read_shards(campaign.home).find(names).values()})


def _by_identity(table: pa.Table) -> Iterator[tuple[Identity, dict[str, Any]]]:
    yield from zip(identities(table), table.to_pylist(), strict=True)


def _counting(snapshot: Snapshot) -> dict[str, set[Identity]]:
    """By label file, the items whose label or retraction is its, without what was undone: what an undo brought back is
    of the file that it was in before."""
    last: dict[Identity, str] = {}
    for name, table in snapshot.tables.items():
        if name not in snapshot.undone:
            last |= dict.fromkeys(identities(table), name)
    found: dict[str, set[Identity]] = {name: set() for name in snapshot.tables}
    for item, name in last.items():
        found[name].add(item)
    return found
