"""Finished labels from a vendor: all of a file are appended, or none."""

import pkgutil
from typing import NamedTuple

import pyarrow as pa

from engine.campaign.changes import refresh
from engine.campaign.folder import Campaign
from engine.campaign.labels import POSITIONS_SCHEMA, append_labels, check_classes, label_row, read_snapshot
from engine.campaign.places import placed
from engine.campaign.positions import write_positions
from engine.campaign.stages import QUIET, Log
from engine.errors import InputError
from engine.handoff import VENDORS
from engine.storage.location import Location
from engine.tables.rows import Row
from engine.tables.values import text_of


class Ingested(NamedTuple):
    """What a file of finished labels brought.

    The numbers of its rows that are new, were known already, have no label yet, or replaced an earlier label; the
    classes that the campaign's labels never had before; how many items that were handed out have no label yet; and how
    many of the new labels are for images whose bytes are in the pool no more.
    """

    new: int
    repeated: int
    blank: int
    replaced: int
    new_classes: list[str]
    out: int
    changed: int = 0


class Rules(NamedTuple):
    """What is accepted: `classes` as labels.classes, and whether a label may replace an earlier other one."""

    classes: list[str] | str = []  # noqa: RUF012 - never written to
    replace: bool = False


ANY = Rules()


def ingest(
    campaign: Campaign, source: Location, vendor: str, picked: pa.Table, rules: Rules = ANY, log: Log = QUIET.log
) -> Ingested:
    """Append the finished labels of a vendor's file, all or none. Repeated rows and files change nothing.

    A label is for the bytes that were handed out. Of the pool only the shards of new labels are looked at, and the
    images that have other bytes now are named: their labels wait until the bytes are back.

    Args:
        picked: every item ever handed out: see `picked_items`.

    Raises InputError for a file without rows, an item_id that was never handed out, a class that is not allowed, or a
    label that contradicts another; nothing is written.
    """
    home, by_id = campaign.home, {item["item_id"]: item for item in picked.to_pylist()}
    snapshot = read_snapshot(home)
    known = snapshot.values
    rows = pkgutil.resolve_name(f"{VENDORS[vendor].module}:read_answers")(source)
    if not rows:
        raise InputError(f"{source}: no rows; give the file that the vendor filled in")
    initial = snapshot.first_classes
    changed: dict[str, Row] = {}
    repeated = blank = replaced = 0
    for row in rows:
        where = f"{source}: line {row['line']}"
        item_id, label = text_of(row["item_id"], f"{where}: item_id"), text_of(row.get("label"), f"{where}: label")
        if item_id not in by_id:
            raise InputError(f"{where}: item_id {item_id!r} was never handed out by this campaign; remove it")
        item = by_id[item_id]
        before, twin = known.get((item["shard"], item["key"])), changed.get(item_id, {}).get("label")
        if not label:
            blank += 1
            continue
        check_classes(rules.classes, initial, label, where)
        if twin not in (None, label) or (before not in (None, label) and not rules.replace):
            why = f"item_id {item_id!r} is {label!r} here but {twin or before!r} before"
            raise InputError(f"{where}: {why}; keep the right one" + ("" if twin else ", or correct it with --replace"))
        if label in (twin, before):
            repeated += 1
        else:
            replaced += before is not None
            changed[item_id] = {**row, "label": label}
    items = [by_id[item_id] for item_id in sorted(changed)]
    _append(home, source, vendor, items, changed)
    new_classes = sorted({row["label"] for row in changed.values()} - set(snapshot.history["label"].to_pylist()))
    if new_classes:
        log(f"new classes, never seen in this campaign before: {', '.join(new_classes)}")
    labelled = set(known) | {(by_id[item_id]["shard"], by_id[item_id]["key"]) for item_id in changed}
    out = sum((item["shard"], item["key"]) not in labelled for item in by_id.values())
    num_changed = _num_changed(campaign, items, log)
    return Ingested(len(changed) - replaced, repeated, blank, replaced, new_classes, out, num_changed)


def _num_changed(campaign: Campaign, items: list[Row], log: Log) -> int:
    """How many of these items are in their shards no more with the bytes that were handed out; they are logged."""
    try:
        refresh(campaign, log, only={item["shard"] for item in items})
        return len(placed(campaign.home, pa.Table.from_pylist(items))[1]) if items else 0
    except InputError as error:
        # The labels are in, and belong to their bytes. Every stage that reads an image compares these.
        log(f"{error}; the labels are taken, and the next training looks at their images")
        return 0


def _append(home: Location, source: Location, vendor: str, items: list[Row], rows: dict[str, Row]) -> None:
    if not items:
        return
    labels = [label_row(rows[i["item_id"]], source, i["shard"], i["key"], i["round"], vendor) for i in items]
    # The positions of picks are known: training need not scan their shards.
    write_positions(home, [tuple(i[name] for name in POSITIONS_SCHEMA.names) for i in items])
    append_labels(home, "ingest", labels)
