"""Corrections of labels, all of them by appending: set one, retract one, undo an ingest or a correction."""

import shlex
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from engine.campaign.classes import classes_of, joined, label_of, names_in, new_names
from engine.campaign.decisions import NEVER_PICK, USER, Author, decide, forgotten, never_picked
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.handed_out import all_batches, current_batches, picked_items
from engine.campaign.labels import Identity, Snapshot, append_labels, identities, read_snapshot
from engine.campaign.opening import current_round
from engine.campaign.positions import positions_of, positions_with
from engine.campaign.stages import Log
from engine.campaign.votes import newest_versions, read_votes
from engine.errors import InputError
from engine.pool.identity import item_id_of
from engine.pool.manifest import read_shards
from engine.pool.shard import current
from engine.storage.location import Location
from engine.tables.item_keys import rows_of_items
from engine.tables.values import is_no_label, text_of

CORRECTION = "correction"
"""`source` of a corrected label."""
FORGET = "forget"
"""The kind of a label file that retracts what is to be forgotten. It is not undone."""


def identity_of(campaign: Campaign, names: list[str], usage: str = "SHARD KEY or ITEM_ID") -> Identity:
    """The (shard, key) that SHARD KEY or an ITEM_ID names. Raises InputError for an item_id that nothing has, that of a
    gold image, or what is not text; `usage` is what a person gives."""
    names = [text_of(name, "the name of the item") for name in names]
    if len(names) == 2:
        return names[0], names[1]
    picked = picked_items(campaign.home, campaign.round + 1, with_released=True)
    items = [*identities(picked), *identities(read_snapshot(campaign.home).history)]
    for shard, key in items:
        if item_id_of(shard, key, campaign.config.salt) == names[0]:
            return shard, key
    if read_shards(campaign.home).find(names[:1]):
        raise InputError(f"{campaign.home}: {names[0]!r} is a shard, so something is missing after it; give {usage}")
    raise InputError(f"{campaign.home}: {fault_of_name(campaign, names[0])}; give {usage}")


def fault_of_name(campaign: Campaign, item_id: str) -> str:
    """Why no image has this item_id, in words for us alone: no vendor may learn what is gold."""
    for batch in all_batches(campaign.home, campaign.round + 1):
        rows = batch.rows()
        for shard, key in identities(rows.filter(pc.equal(rows["item_id"], item_id))):
            return f"item_id {item_id!r} was sent as gold with {batch.record}: it is the image {shard} {key}"
    return f"item_id {item_id!r} was never handed out or labelled"


def set_label(campaign: Campaign, item: Identity, label: str, log: Log, author: Author = USER) -> str:
    """Give an item of the pool this label. Returns the label before, or "".

    Raises InputError for an item that is not in the pool, an empty label, or a class that is not allowed.
    """
    home, snapshot = campaign.home, read_snapshot(campaign.home)
    if is_no_label(label, campaign.config.named_classes):
        fix = f"to take it away: vaal labels {home.quoted} retract {shlex.join(item)}"
        raise InputError(f"{item[0]}/{item[1]}: the label is empty; {fix}")
    label = label_of(label, campaign.config, f"{item[0]}/{item[1]}: label")
    require_class(campaign, snapshot, item, label)
    if item in forgotten(home):
        raise InputError(f"{item[0]}/{item[1]}: was forgotten, and gets no label; give its label to another image")
    # Asked first: a refusal after the position is written would leave the earlier label with other bytes.
    round_number = round_of(campaign, snapshot, item)
    bytes_before = _hash_of(home, item)
    # The label is for the bytes that are there now, also where the shard changed since it was listed.
    shards = read_shards(home)
    shards = shards.merged(map(current, shards.find(item[:1]).values()))
    positions_of(home, rows_of_items([item]), shards, campaign.config.image, log, new_in=f"{home}/labels")
    before = snapshot.values.get(item, "")
    history = snapshot.history["label"].drop_null().to_pylist()
    for name in new_names([label], history, campaign.config.handoff.question.task):
        log(f"new class, never seen in this campaign before: {name}")
    # Also the label that votes gave: now it stands over those that are still to come.
    if label != before or _is_derived(snapshot, item) or _hash_of(home, item) != bytes_before:
        append_labels(home, "set", [correction_row(item, label, round_number, author)])
    return before


def require_class(campaign: Campaign, snapshot: Snapshot, item: Identity, label: str) -> None:
    """Raises InputError for a class that an ingest would refuse."""
    classes = classes_of(campaign.config, lambda: snapshot.first_labels)
    for name in names_in(label, campaign.config.handoff.question.task):
        if fault := classes.fault(name):
            advice = classes.advice([name], f"vaal handoff {campaign.home.quoted} ")
            raise InputError(f"{item[0]}/{item[1]}: {joined(fault, advice)}")


def _is_derived(snapshot: Snapshot, item: Identity) -> bool:
    """Whether an item's label follows from votes."""
    words = snapshot.last_words()
    place = pc.and_(pc.equal(words["shard"], item[0]), pc.equal(words["key"], item[1]))
    return bool(pc.any(words.filter(place)["is_derived"]).as_py())


def _hash_of(home: Location, item: Identity) -> str | None:
    """The content hash of the image that an item's label is for."""
    found: list[str | None] = positions_with(home, rows_of_items([item]))["content_hash"].to_pylist()
    return found[0] if found else None


def retract(campaign: Campaign, item: Identity, author: Author = USER, *, never_pick: bool = False) -> str:
    """Take an item's label away. Returns it. The item is unlabelled again; with `never_pick` it is never picked, and
    may have no label even now. Raises InputError where there is no label."""
    snapshot, salt = read_snapshot(campaign.home), campaign.config.salt
    before = snapshot.values.get(item)
    if before is None and not never_pick:
        raise InputError(
            f"{campaign.home}: {item[0]}/{item[1]} has no label; see: vaal labels {campaign.home.quoted} list"
        )
    if before is not None:
        append_labels(
            campaign.home, "retract", [correction_row(item, None, round_of(campaign, snapshot, item), author)]
        )
    if never_pick and item not in never_picked(campaign.home):
        decide(campaign.home, NEVER_PICK, [(item_id_of(*item, salt), *item, None)], author)
    return before or ""


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


def round_of(campaign: Campaign, snapshot: Snapshot, item: Identity) -> int | None:
    """As `rounds_of`, of one item."""
    return rounds_of(campaign, snapshot).get(item)


def correction_row(item: Identity, label: str | None, round_number: int | None, author: Author) -> tuple[Any, ...]:
    """The row of LABELS_SCHEMA of a correction; None takes the label away."""
    return (*item, label, round_number, CORRECTION, author.name, datetime.now(UTC), None, author.why or None)
