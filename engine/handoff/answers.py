"""Finished labels from a vendor: all of a file are appended, or none."""

import hashlib
import pkgutil
from typing import NamedTuple

import pyarrow as pa

from engine.campaign.labels import POSITIONS_SCHEMA, append_labels, label_row, labelled_values
from engine.errors import InputError
from engine.handoff import VENDORS
from engine.storage.location import Location
from engine.tables.rows import Row


class Ingested(NamedTuple):
    """The number of rows of a file of finished labels that are new, were known already, or have no label yet."""

    new: int
    repeated: int
    blank: int


def ingest(home: Location, source: Location, vendor: str, picked: pa.Table) -> Ingested:
    """Append the finished labels of a vendor's file, all or none. Repeated rows and files change nothing.

    Args:
        picked: every item ever handed out: see `picked_items`.

    Raises InputError for an item_id that was never handed out, or a label that contradicts another; nothing is written.
    """
    by_id = {item["item_id"]: item for item in picked.to_pylist()}
    known = labelled_values(home)
    new: dict[str, Row] = {}
    repeated = blank = 0
    for row in pkgutil.resolve_name(f"{VENDORS[vendor].module}:read_answers")(source):
        item_id, label, line = str(row["item_id"]), str(row.get("label") or "").strip(), f"line {row['line']}"
        if "label" not in row:
            raise InputError(f"{source}: {line}: no 'label'; leave it empty where there is none yet")
        if item_id not in by_id:
            raise InputError(f"{source}: {line}: item_id {item_id!r} was never handed out by this campaign; remove it")
        item = by_id[item_id]
        before = known.get((item["shard"], item["key"]), new.get(item_id, {}).get("label"))
        if not label:
            blank += 1
        elif before is None:
            new[item_id] = {**row, "label": label}
        elif before == label:
            repeated += 1
        else:
            why = f"item_id {item_id!r} is {label!r} here but {before!r} before"
            raise InputError(f"{source}: {line}: {why}; keep the right one")
    if new:
        digest = hashlib.sha256("\n".join(f"{i}\t{new[i]['label']}" for i in sorted(new)).encode()).hexdigest()
        items = [by_id[item_id] for item_id in sorted(new)]
        append_labels(
            home,
            f"ingest-{digest[:16]}",
            [tuple(i[name] for name in POSITIONS_SCHEMA.names) for i in items],
            [label_row(new[i["item_id"]], source, i["shard"], i["key"], i["round"], vendor) for i in items],
        )
    return Ingested(len(new), repeated, blank)
