"""Where images are now whose shard changed since they were labelled or picked.

Label files and selections keep the place that an image had. An image is its bytes: pool/moved.parquet says where the
same bytes are now, or why they are nowhere.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.storage.location import Location
from engine.tables.columns import required
from engine.tables.rows import Row
from engine.tables.scores import to_table

MOVED_SCHEMA = pa.schema(
    [
        *required(pa.string(), "shard", "key"),
        pa.field("content_hash", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("size_bytes", pa.int64()),
        pa.field("fault", pa.string()),
    ]
)
"""`fault` says why the image is not in its shard any more; then it has no place."""
Known = tuple[str, str, str | None]
"""shard, key, content hash of an image; the hash is None where an older campaign did not keep it."""


def read_moved(home: Location) -> list[Row]:
    """The rows of pool/moved.parquet; none where no shard ever changed."""
    file = home / "pool/moved.parquet"
    rows: list[Row] = file.read_typed_table(MOVED_SCHEMA).to_pylist() if file.exists() else []
    return rows


def write_moved(home: Location, rows: list[tuple[Any, ...]]) -> None:
    """Replace pool/moved.parquet."""
    (home / "pool/moved.parquet").write_table(to_table(sorted(rows, key=str), MOVED_SCHEMA))


def known_of(row: Row) -> Known:
    """What identifies the image of a row with these columns."""
    return row["shard"], row["key"], row["content_hash"]


def are_touched(home: Location, shards: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which shards (N,) some image moved in, or left."""
    # In most campaigns few shards ever change.
    names = pa.array(sorted({row["shard"] for row in read_moved(home)}), pa.string())
    if not len(names):
        return np.zeros(len(shards), bool)
    found: NDArray[np.bool_] = pc.is_in(shards.cast(pa.string()), value_set=names).to_numpy()
    return found


def placed(home: Location, table: pa.Table) -> tuple[pa.Table, list[Row]]:
    """Labelled or picked images where they are now, and those that are in their shards no more, with their `fault`.

    Args:
        table: any columns, with those of POSITIONS_SCHEMA.
    """
    is_touched = are_touched(home, table["shard"])
    if not is_touched.any():
        return table, []
    moved = {known_of(row): row for row in read_moved(home)}
    rows = [
        {**row, **moved.get(known_of(row), {"fault": None})} for row in table.filter(pa.array(is_touched)).to_pylist()
    ]
    is_here = np.array([not row["fault"] for row in rows], bool)
    here = [{name: row[name] for name in table.column_names} for row in rows if not row["fault"]]
    place = np.concatenate([np.flatnonzero(~is_touched), np.flatnonzero(is_touched)[is_here]])
    found = pa.concat_tables([table.filter(pa.array(~is_touched)), pa.Table.from_pylist(here, schema=table.schema)])
    return found.take(pa.array(np.argsort(place))), [row for row in rows if row["fault"]]
