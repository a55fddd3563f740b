"""Corrections of labels, all of them by appending: set one, retract one, undo an ingest or a correction."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.changes import look_again
from engine.campaign.decisions import FOLDER as DECISIONS
from engine.campaign.decisions import MAY_PICK, NEVER_PICK, USER, Author, decide, forgotten, never_picked
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.handed_out import current_batches, picked_items
from engine.campaign.labels import (
    INGEST,
    PLACES,
    REPLACED,
    VOTES,
    Identity,
    Snapshot,
    append_labels,
    check_classes,
    identities,
    read_snapshot,
)
from engine.campaign.opening import current_round
from engine.campaign.positions import all_positions, earlier_positions, positions_of, write_positions
from engine.campaign.stages import Log
from engine.campaign.votes import files_of_votes, newest_versions, read_votes
from engine.errors import InputError
from engine.pool.identity import item_id_of
from engine.pool.manifest import read_shards
from engine.pool.shard import current
from engine.storage.location import Location
from engine.tables.values import class_of, is_no_label, text_of

CORRECTION = "correction"
"""`source` of a corrected label."""
FORGET = "forget"
"""The kind of a label file that retracts what is to be forgotten. It is not undone."""


def identity_of(campaign: Campaign, names: list[str]) -> Identity:
    """The (shard, key) that SHARD KEY or an ITEM_ID names. Raises InputError for an item_id that nothing has, or
    what is not text."""
    names = [text_of(name, "the name of the item") for name in names]
    if len(names) == 2:
        return names[0], names[1]
    picked = picked_items(campaign.home, campaign.round + 1, with_released=True)
    items = [*identities(picked), *identities(read_snapshot(campaign.home).history)]
    for shard, key in items:
        if item_id_of(shard, key, campaign.config.salt) == names[0]:
            return shard, key
    raise InputError(f"{campaign.home}: item_id {names[0]!r} was never handed out or labelled; give SHARD KEY")


def set_label(campaign: Campaign, item: Identity, label: str, log: Log, author: Author = USER) -> str:
    """Give an item of the pool this label. Returns the label before, or "".

    Raises InputError for an item that is not in the pool, an empty label, or a class that is not allowed.
    """
    home, snapshot, label = campaign.home, read_snapshot(campaign.home), class_of(label, f"{item[0]}/{item[1]}: label")
    if is_no_label(label, campaign.config.named_classes):
        fix = f"to take it away: vaal labels {home} retract {item[0]} {item[1]}"
        raise InputError(f"{item[0]}/{item[1]}: the label is empty; {fix}")
    check_classes(campaign.config.labels.classes, snapshot.first_classes, label, f"{item[0]}/{item[1]}")
    if item in forgotten(home):
        raise InputError(f"{item[0]}/{item[1]}: was forgotten, and gets no label; give its label to another image")
    # Asked first: a refusal after the position is written would leave the earlier label with other bytes.
    round_number = _round_of(campaign, snapshot, item)
    bytes_before = _hash_of(home, item)
    # The label is for the bytes that are there now, also where the shard changed since it was listed.
    shards = [current(shard) if shard.shard == item[0] else shard for shard in read_shards(home)]
    positions_of(home, {item}, shards, campaign.config.image, log, is_new=True)
    before = snapshot.values.get(item, "")
    if label not in snapshot.history["label"].to_pylist():
        log(f"new class, never seen in this campaign before: {label}")
    # Also the label that votes gave: now it stands over those that are still to come.
    if label != before or _is_derived(snapshot, item) or _hash_of(home, item) != bytes_before:
        append_labels(home, "set", [correction_row(item, label, round_number, author)])
    return before


def _is_derived(snapshot: Snapshot, item: Identity) -> bool:
    """Whether an item's label follows from votes."""
    words = snapshot.last_words()
    place = pc.and_(pc.equal(words["shard"], item[0]), pc.equal(words["key"], item[1]))
    return bool(pc.any(words.filter(place)["is_derived"]).as_py())


def _hash_of(home: Location, item: Identity) -> str | None:
    """The content hash of the image that an item's label is for."""
    positions = all_positions(home)
    hashes: dict[Identity, str] = dict(zip(identities(positions), positions["content_hash"].to_pylist(), strict=True))
    return hashes.get(item)


def retract(campaign: Campaign, item: Identity, author: Author = USER, *, never_pick: bool = False) -> str:
    """Take an item's label away. Returns it. The item is unlabelled again; with `never_pick` it is never picked, and
    may have no label even now. Raises InputError where there is no label."""
    snapshot, salt = read_snapshot(campaign.home), campaign.config.salt
    before = snapshot.values.get(item)
    if before is None and not never_pick:
        raise InputError(f"{campaign.home}: {item[0]}/{item[1]} has no label; see: vaal labels {campaign.home} list")
    if before is not None:
        append_labels(
            campaign.home, "retract", [correction_row(item, None, _round_of(campaign, snapshot, item), author)]
        )
    if never_pick and item not in never_picked(campaign.home):
        decide(campaign.home, NEVER_PICK, [(item_id_of(*item, salt), *item, None)], author)
    return before or ""


def undo(campaign: Campaign, name: str = "", author: Author = USER) -> tuple[str, int]:
    """Take back the last ingest of all, or the named one, or the named file of a correction: each item is what it is
    without it. The votes of an ingest stay, and do not count any more. Of a named decision never to pick images, they
    may be.

    Items that were corrected since stay, and what was undone before stays undone. Returns the name of the file, and the
    number of items.

    Raises InputError where there is no such file, or nothing of it counts any more.
    """
    snapshot = read_snapshot(campaign.home)
    name = name.removesuffix(".parquet")
    if f"-{FORGET}-" in name:
        raise InputError(f"{campaign.home}: {name}: what was forgotten stays so; undo another file")
    if kept_out := _kept_out_by(campaign.home, name):
        return f"{name}.parquet", decide(campaign.home, MAY_PICK, kept_out, author)
    ingest = _ingest_of(campaign.home, snapshot, name)
    if not ingest:
        wanted = _label_file(campaign, snapshot, name)
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


def _ingest_of(home: Location, snapshot: Snapshot, name: str) -> str:
    """The ingest with votes that a name says, its own or of its file of labels; without a name the last one; "" where
    there is none. Raises InputError where the last one is undone: whoever asks again, after a crash, wants no other."""
    ingests = [file.removesuffix(".parquet") for file in files_of_votes(home)]
    counting = [ingest for ingest in ingests if ingest not in snapshot.undone_votes]
    if not name and ingests:
        if ingests[-1] not in counting:
            fix = f"to undo an earlier one, name it; there are: {', '.join(counting) or 'none'}"
            raise InputError(f"{home}: the last ingest, {ingests[-1]}, is undone already; {fix}")
        return ingests[-1]
    number = int(snapshot.marks.get(f"labels/{name}.parquet", {}).get(VOTES, 0)) if f"-{INGEST}-" in name else 0
    asked = ingests[number - 1] if number else name
    return asked if asked in counting else ""


def _label_file(campaign: Campaign, snapshot: Snapshot, name: str) -> str:
    """The file of labels to take back. Raises InputError as `undo`."""
    counting = _counting(snapshot)
    files = [file for file in snapshot.tables if counting[file] and (name or f"-{INGEST}-" in file)]
    wanted = f"labels/{name}.parquet" if name else next(reversed(files), "")
    if wanted not in files:
        there = ", ".join(file.removeprefix("labels/") for file in files) or "none"
        what = f"label file {name + '.parquet'!r} whose rows count" if name else "ingest whose labels count"
        raise InputError(f"{campaign.home}: no {what}; there are: {there}")
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
        else correction_row(item, None, _round_of(campaign, snapshot, item), author)
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
        look_again(campaign.home, {shard.url for shard in read_shards(campaign.home) if shard.shard in names})


def note_on_training(campaign: Campaign) -> str:
    """When labels that came now are trained on, if not by the round's own training; "" where nobody needs to know."""
    if current_round(campaign.home) > campaign.round or not is_complete(campaign.stage("train")):
        return ""
    return f"these labels came after round {campaign.round:03d} was trained; they count from the next training on"


def list_labels(campaign: Campaign) -> list[dict[str, Any]]:
    """Every label that counts: shard, key, item_id, label, num_votes: how many answers it follows from, in their newest
    versions. What a person or another program says is one."""
    snapshot, salt = read_snapshot(campaign.home), campaign.config.salt
    votes = newest_versions(read_votes(campaign.home, snapshot.undone_votes))
    counts = Counter(votes.filter(pc.invert(votes["skipped"]))["item_id"].to_pylist())
    words = snapshot.last_words()
    derived = set(identities(words.filter(words["is_derived"])))
    named = ((item_id_of(*item, salt), item, label) for item, label in sorted(snapshot.values.items()))
    return [
        {
            "shard": item[0],
            "key": item[1],
            "item_id": name,
            "label": label,
            "num_votes": (item in derived and counts[name]) or 1,
        }
        for name, item, label in named
    ]


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


def rounds_of(campaign: Campaign, snapshot: Snapshot) -> dict[Identity, int | None]:
    """The round of the labels of each item so far, or the one that it was picked in. Until a selection is handed out,
    it can be made again without what got a label: such a label ends no round."""
    is_out = bool(current_batches(campaign.home, campaign.round))
    tables = (picked_items(campaign.home, campaign.round + is_out), snapshot.history)
    return {
        item: number
        for table in tables
        for item, number in zip(identities(table), table["round"].to_pylist(), strict=True)
    }


def _round_of(campaign: Campaign, snapshot: Snapshot, item: Identity) -> int | None:
    return rounds_of(campaign, snapshot).get(item)


def correction_row(item: Identity, label: str | None, round_number: int | None, author: Author) -> tuple[Any, ...]:
    """The row of LABELS_SCHEMA of a correction; None takes the label away."""
    return (*item, label, round_number, CORRECTION, author.name, datetime.now(UTC), None, author.why or None)
