"""Positions of images in memory: columns, of which ten million take half a gigabyte."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa

from engine.campaign.labels import POSITIONS_SCHEMA, Identity
from engine.cluster.allocation import give_back_freed_memory
from engine.tables.by_shard import BLOCK, places_of_texts
from engine.tables.columns import RowBatches
from engine.tables.digests import DIGEST, packed, unpacked
from engine.tables.scores import SHARD_FIELD

Position = tuple[str, str, int, int, str | None]
"""shard, key, offset, size_bytes, content_hash."""
PLACES_SCHEMA = POSITIONS_SCHEMA.set(0, SHARD_FIELD.with_type(pa.dictionary(pa.int32(), pa.string())))
"""POSITIONS_SCHEMA in memory: the names of shards are a dictionary."""
PACKED_SCHEMA = PLACES_SCHEMA.set(4, pa.field("content_hash", DIGEST))
"""PLACES_SCHEMA, with hashes as bytes: of ten million images they take 160 MB, and 360 MB as texts."""


class Positions(Sequence[Position]):
    """Positions by their numbers, sorted by (shard, offset). They are columns; a tuple is made where one is read."""

    def __init__(self, table: pa.Table) -> None:
        """Of a table of PACKED_SCHEMA, as `sorted_places` has it."""
        self.table, self._rows = table, RowBatches(table, BLOCK)

    @staticmethod
    def of(table: pa.Table) -> "Positions":
        """Of a table of PLACES_SCHEMA, POSITIONS_SCHEMA or PACKED_SCHEMA in any order."""
        return Positions(sorted_places(as_packed(table)))

    def __reduce__(self) -> tuple[Callable[[pa.Table], "Positions"], tuple[pa.Table]]:
        # Without its pieces: each would be sent with all of the table.
        return Positions, (self.table,)

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, number: int) -> Position: ...
    @overload
    def __getitem__(self, number: slice) -> list[Position]: ...
    def __getitem__(self, number: int | slice) -> Position | list[Position]:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        shard, key, offset, size, content = self._rows.row(number)
        return shard, key, offset, size, content and content.hex()

    def items(self) -> Iterator[Identity]:
        """(shard, key) of each."""
        for batch in self._rows.batches:
            yield from zip(*map(_texts, batch.columns[:2]), strict=True)

    def __iter__(self) -> Iterator[Position]:
        for batch in self._rows.batches:
            yield from rows_of(as_texts(pa.Table.from_batches([batch])))


def sorted_places(table: pa.Table) -> pa.Table:
    """A table with shard and offset, sorted by them: column by column, for all at once would be there twice where the
    caller lets the table go."""
    _, place_N = places_of_texts(table["shard"])
    order = np.lexsort((table["offset"].to_numpy(), place_N))
    del place_N
    if (np.diff(order) == 1).all():
        return table
    schema, columns, rows = table.schema, table.columns, pa.array(order.astype(np.int32))
    del table, order
    return pa.table([_first_taken(columns, rows) for _ in schema], schema=schema)


def _first_taken(columns: list[pa.ChunkedArray], rows: pa.Array) -> pa.Array:
    """These rows of the first column, which is let go."""
    # To take from several pieces makes one of them, while they are still there.
    whole = columns.pop(0).combine_chunks()
    give_back_freed_memory()
    return whole.take(rows)


def _texts(column: pa.Array) -> list[str]:
    """As `to_pylist`, at a tenth of its time."""
    plain = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    found: list[str] = plain.to_numpy(zero_copy_only=False).tolist()
    return found


def as_texts(table: pa.Table) -> pa.Table:
    """PACKED_SCHEMA as PLACES_SCHEMA."""
    return table.set_column(4, PLACES_SCHEMA.field(4), unpacked(table["content_hash"]))


def as_packed(table: pa.Table) -> pa.Table:
    """PLACES_SCHEMA, POSITIONS_SCHEMA or PACKED_SCHEMA as PACKED_SCHEMA; columns behind these stay."""
    if table.schema.field("content_hash").type == DIGEST:
        return table
    places, end = table.select(PLACES_SCHEMA.names).cast(PLACES_SCHEMA), len(PLACES_SCHEMA)
    columns = [*places.columns[:-1], packed(table["content_hash"]), *table.columns[end:]]
    return pa.table(columns, schema=pa.schema([*PACKED_SCHEMA, *list(table.schema)[end:]]))


def rows_of(table: pa.Table) -> list[Position]:
    """The rows of PLACES_SCHEMA."""
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
