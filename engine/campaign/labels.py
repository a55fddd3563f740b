"""What is labelled, and where the labelled images are.

Label files are append-only. There is one for each import, named by its content, so that writing one twice changes
nothing. A file of the same name in pool/items/ says where the images are, so that training reads them by byte range.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from engine.campaign.places import placed
from engine.errors import InputError
from engine.storage.location import Location
from engine.tables.columns import required
from engine.tables.rows import Row
from engine.tables.scores import ITEM_FIELDS, SHARD_FIELD, to_table

LABELS_SCHEMA = pa.schema(
    [
        *required(pa.string(), "shard", "key", "label"),
        pa.field("round", pa.int32()),
        *required(pa.string(), "source"),
        pa.field("annotator", pa.string()),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC")),
    ]
)
POSITIONS_SCHEMA = pa.schema([SHARD_FIELD, *ITEM_FIELDS[:3], pa.field("content_hash", pa.string())])
"""Where an image was when it was labelled. The hash is null where an older campaign did not keep it."""


def read_labels(home: Location) -> pa.Table:
    """All labels of the campaign, LABELS_SCHEMA. `round` is null for those given at init."""
    return _read_all(home / "labels", LABELS_SCHEMA)


def labels_fingerprints(home: Location) -> dict[str, str]:
    """SHA-256 of every label file by its name below the campaign."""
    folder = home / "labels"
    return {f"labels/{name}": hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in folder.children()}


def labelled_items(home: Location) -> set[tuple[str, str]]:
    """(shard, key) of everything that has a label."""
    return set(labelled_values(home))


def labelled_values(home: Location) -> dict[tuple[str, str], str]:
    """The label of every (shard, key) that has one."""
    labels = read_labels(home)
    identities = zip(labels["shard"].to_pylist(), labels["key"].to_pylist(), strict=True)
    return dict(zip(identities, labels["label"].to_pylist(), strict=True))


def labelled_positions(home: Location) -> pa.Table:
    """Where the labelled images are now: POSITIONS_SCHEMA, sorted by (shard, offset). Those that are in their shards no
    more are left out."""
    here, _ = placed(home, all_positions(home))
    return here.sort_by([("shard", "ascending"), ("offset", "ascending")])


def all_positions(home: Location) -> pa.Table:
    """Where the labelled images were when they were labelled: POSITIONS_SCHEMA."""
    return _read_all(home / "pool/items", POSITIONS_SCHEMA)


def _read_all(folder: Location, schema: pa.Schema) -> pa.Table:
    tables = ((folder / name).read_typed_table(schema) for name in folder.children())
    return pa.concat_tables([schema.empty_table(), *tables])


def label_row(row: Row, file: Location, shard: str, key: str, round_number: int | None, source: str) -> tuple[Any, ...]:
    """A row of LABELS_SCHEMA from a row of a person's file. Raises InputError where `labelled_at` is not a time."""
    moment = row.get("labelled_at") or datetime.now(UTC)
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError as error:
            why = f"labelled_at {moment!r} is not an ISO 8601 time, like 2026-01-31T12:00:00Z"
            raise InputError(f"{file}: line {row['line']}: {why}") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    annotator = row.get("annotator")
    return shard, key, str(row["label"]).strip(), round_number, source, str(annotator) if annotator else None, moment


def append_labels(
    home: Location, name: str, positions: Iterable[tuple[Any, ...]], labels: Iterable[tuple[Any, ...]]
) -> None:
    """Write a file of labels, rows of LABELS_SCHEMA, and the positions of their images, rows of POSITIONS_SCHEMA."""
    # The label file comes last: an item counts as labelled only when its position is known.
    for folder, rows, schema in (("pool/items", positions, POSITIONS_SCHEMA), ("labels", labels, LABELS_SCHEMA)):
        (home / f"{folder}/{name}.parquet").write_table(to_table(list(rows), schema))
