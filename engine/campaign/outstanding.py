"""What was picked so far. It is never picked again."""

from collections.abc import Iterator

import pyarrow as pa

from engine.campaign.folder import is_complete, round_home
from engine.campaign.manifests import read_committed
from engine.storage.location import Location
from engine.tables.selections import SELECTION_SCHEMA, with_hash


def replaced(home: Location, number: int) -> Iterator[Location]:
    """Folders of the round's selections that were handed out and then replaced, oldest first."""
    place = 0
    while is_complete(folder := round_home(home, number) / f"selection/replaced/{place:03d}"):
        yield folder
        place += 1


def picked_items(home: Location, before: int) -> pa.Table:
    """Everything picked in the rounds before: item_id, shard, key, offset, size_bytes, content_hash, round.

    This includes picks that were handed out and then replaced, also those of round `before` itself.
    """
    columns = ["item_id", "shard", "key", "offset", "size_bytes", "content_hash"]
    tables = [pa.schema([*(SELECTION_SCHEMA.field(name) for name in columns), ("round", pa.int32())]).empty_table()]
    for number in range(before + 1):
        folders = [*replaced(home, number), *([round_home(home, number) / "selection"] if number < before else [])]
        for folder in filter(is_complete, folders):
            table = with_hash(read_committed(folder, "selection.parquet")).select(columns)
            tables.append(table.append_column("round", pa.array([number] * len(table), pa.int32())))
    return pa.concat_tables(tables)
