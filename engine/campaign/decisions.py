"""What people decided on images apart from their labels: only ever added to, with who and why.

The folder decisions/ has a file for each decision, with a row for each image that it is about.
"""

import getpass
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import next_number
from engine.campaign.labels import Identity, identities
from engine.storage.location import Location
from engine.tables.columns import required
from engine.tables.item_keys import ItemIndex, ItemKeys

FOLDER = "decisions"
RECALLED, EXPIRED, PICK_AGAIN, NEVER_PICK, FORGOTTEN = "recalled", "expired", "pick again", "never pick", "forgotten"
MAY_PICK = "may pick"
"""Kinds: what is out is taken back from a vendor, or given up; what was taken back may be picked again; an image is
never to be picked; or it is to be forgotten, which implies that; or it may be picked after all."""
DECISIONS_SCHEMA = pa.schema(
    [
        *required(pa.string(), "kind", "item_id", "shard", "key"),
        pa.field("batch", pa.string()),
        *required(pa.timestamp("us", tz="UTC"), "at"),
        *required(pa.string(), "who"),
        pa.field("why", pa.string()),
    ]
)
"""`batch` is the record below the campaign that the image went out with, rounds/000/handed_out/VENDOR-000; null where
the decision is on the image itself."""


class Author(NamedTuple):
    """Who decides, and why. Both may be empty: then it is the user of this machine."""

    who: str = ""
    why: str = ""

    @property
    def name(self) -> str:
        try:
            return self.who or getpass.getuser()
        except (KeyError, OSError):
            # A container's user may have no name.
            return "unknown"


USER = Author()


def decide(home: Location, kind: str, items: Iterable[tuple[str, str, str, str | None]], author: Author) -> int:
    """Append a decision on images: item_id, shard, key, batch. Returns the number of rows; none write no file."""
    at = datetime.now(UTC)
    rows: list[tuple[Any, ...]] = [(kind, *item, at, author.name, author.why or None) for item in items]
    if rows:
        table = pa.Table.from_pylist([dict(zip(DECISIONS_SCHEMA.names, row, strict=True)) for row in rows])
        name = f"{next_number((home / FOLDER).children())}-{kind.replace(' ', '-')}"
        (home / f"{FOLDER}/{name}.parquet").write_table(table.cast(DECISIONS_SCHEMA))
    return len(rows)


def read_decisions(home: Location) -> pa.Table:
    """All decisions, oldest first: DECISIONS_SCHEMA."""
    folder = home / FOLDER
    tables = [(folder / name).read_typed_table(DECISIONS_SCHEMA) for name in folder.children()]
    return pa.concat_tables([DECISIONS_SCHEMA.empty_table(), *tables])


def decided(decisions: pa.Table, *kinds: str) -> pa.Table:
    """The rows of these kinds."""
    return decisions.filter(pc.is_in(decisions["kind"], value_set=pa.array(kinds)))


def never_picked(home: Location) -> set[Identity]:
    """(shard, key) of everything that is never to be picked."""
    decisions = read_decisions(home)
    rows = decided(decisions, NEVER_PICK, MAY_PICK)
    last = dict(zip(identities(rows), rows["kind"].to_pylist(), strict=True))
    gone = set(identities(decided(decisions, FORGOTTEN)))
    return gone | {item for item, kind in last.items() if kind == NEVER_PICK}


def forgotten(home: Location) -> set[Identity]:
    """(shard, key) of everything that is to be forgotten: nobody looks at it any more, and no network does."""
    return set(identities(decided(read_decisions(home), FORGOTTEN)))


def without_forgotten(home: Location, table: pa.Table) -> pa.Table:
    """The rows of a table with shard and key that are not to be forgotten."""
    gone = forgotten(home)
    if not gone:
        return table
    index = ItemIndex(ItemKeys.of_items(sorted(gone)))
    return table.filter(pa.array(~index.holds(ItemKeys.of(table))))


def released(home: Location) -> set[tuple[str, str]]:
    """(record of the batch, item_id) of everything that was taken back and may be picked again."""
    rows = decided(read_decisions(home), PICK_AGAIN)
    return set(zip(rows["batch"].to_pylist(), rows["item_id"].to_pylist(), strict=True))
