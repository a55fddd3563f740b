"""What came back from a vendor: finished labels, appended all or none."""

import hashlib
import pkgutil
from typing import NamedTuple

import pyarrow as pa

from engine.campaign.labels import append_labels, label_row, labelled_values
from engine.errors import InputError
from engine.handoff import VENDORS
from engine.storage.location import Location
from engine.tables.rows import Row


class Ingested(NamedTuple):
    """What a file of finished labels held: rows by what became of them."""

    new: int
    repeated: int
    blank: int


def ingest(home: Location, source: Location, vendor: str, picked: pa.Table) -> Ingested:
    """Append the finished labels of a vendor's file, all or none. Repeated rows and files change nothing.

    Args:
        picked: every item ever handed out: item_id, shard, key, round, offset, size_bytes.

    Raises:
        InputError: an item_id that was never handed out, or a label that contradicts another; nothing is written.
    """
    by_id = {row["item_id"]: row for row in picked.to_pylist()}
    known = labelled_values(home)
    new: dict[str, Row] = {}
    repeated = blank = 0
    for row in pkgutil.resolve_name(f"{VENDORS[vendor].module}:read_answers")(source):
        item_id, label, line = str(row["item_id"]), str(row.get("label") or "").strip(), row["line"]
        if "label" not in row:
            raise InputError(f"{source}: line {line}: no 'label'; leave it empty where there is none yet")
        if item_id not in by_id:
            raise InputError(f"{source}: line {line}: item_id {item_id!r} was never handed out by this campaign")
        if not label:
            blank += 1
            continue
        item = by_id[item_id]
        before = known.get((item["shard"], item["key"]), new.get(item_id, {}).get("label"))
        if before is not None and before != label:
            raise InputError(f"{source}: line {line}: item_id {item_id!r} is {label!r} here but {before!r} before")
        if before is not None:
            repeated += 1
        else:
            new[item_id] = {**row, "label": label}
    if new:
        ordered = sorted(new)
        digest = hashlib.sha256("\n".join(f"{i}\t{new[i]['label']}" for i in ordered).encode()).hexdigest()
        items = [by_id[i] for i in ordered]
        append_labels(
            home,
            f"ingest-{digest[:16]}",
            [(i["shard"], i["key"], i["offset"], i["size_bytes"]) for i in items],
            [label_row(new[i["item_id"]], i["shard"], i["key"], i["round"], vendor) for i in items],
        )
    return Ingested(len(new), repeated, blank)
