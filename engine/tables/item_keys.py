"""Which rows of tables are about the same item, for tens of millions of rows: an item is 128 bits of a hash of its
shard and key, and no Python object.

The hash is of this process alone and is never written. Two of 10^7 different items have the same one with a
probability of 10^-25.

Shape suffixes: N rows, W words of 8 bytes, 2 lanes of 64 bits.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Words = NDArray[np.uint64]
ITEM_SCHEMA = pa.schema([("shard", pa.string()), ("key", pa.string())])
_BLOCK_ROWS = 65_536
_BLOCK_BYTES = 64 << 20
_LOOKED_UP = 1 << 20
"""Items that are looked up together."""
# Odd constants of SplitMix64 and of xxHash: each lane has its own.
_FIRST = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_SECOND = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT, _HALF, _PART = np.uint64(29), np.uint64(32), np.uint64(60)


class ItemKeys:
    """The keys of N rows. Rows of the same item, of whatever table, have the same."""

    def __init__(self, high_N: Words, low_N: Words) -> None:
        self.high_N, self.low_N = high_N, low_N

    @staticmethod
    def of(table: pa.Table) -> "ItemKeys":
        """Those of a table with the columns shard and key, which may be dictionaries."""
        high_N, low_N, begin = *(np.empty(len(table), np.uint64) for _ in range(2)), 0
        hashed = _Hashes()
        # In blocks: of all rows, the hashes of shards and keys take as much again as what is kept.
        for batch in table.select(ITEM_SCHEMA.names).to_batches(_BLOCK_ROWS):
            shard, key = map(hashed.of, batch.columns)
            rows = slice(begin, begin + len(batch))
            for lane_N, a, b, first, second in zip((high_N, low_N), shard, key, _FIRST, _SECOND, strict=True):
                # A shard and a key that change places are another item.
                lane_N[rows] = _mixed(a * first ^ b, second)
            begin += len(batch)
        return ItemKeys(high_N, low_N)

    @staticmethod
    def of_items(items: Sequence[tuple[str, str]]) -> "ItemKeys":
        """Those of (shard, key)."""
        return ItemKeys.of(rows_of_items(items))

    @staticmethod
    def of_texts(column: pa.ChunkedArray) -> "ItemKeys":
        """Those of a column of names of items, such as item_ids."""
        found, begin, hashed = ItemKeys(*(np.empty(len(column), np.uint64) for _ in range(2))), 0, _Hashes()
        for batch in pa.table({"": column}).to_batches(_BLOCK_ROWS):
            rows = slice(begin, begin + len(batch))
            found.high_N[rows], found.low_N[rows] = hashed.of(batch.column(0))
            begin += len(batch)
        return found

    def part(self, rows: slice | NDArray[np.generic]) -> "ItemKeys":
        """Those of some rows."""
        return ItemKeys(self.high_N[rows], self.low_N[rows])

    def copy(self) -> "ItemKeys":
        """In memory of their own."""
        return ItemKeys(self.high_N.copy(), self.low_N.copy())

    def __len__(self) -> int:
        return len(self.high_N)


class KeyParts:
    """Keys of one table after another."""

    def __init__(self) -> None:
        self._lanes: dict[str, list[Words]] = {"high_N": [np.empty(0, np.uint64)], "low_N": [np.empty(0, np.uint64)]}

    def add(self, keys: ItemKeys) -> None:
        """Those of the next table."""
        for name, parts in self._lanes.items():
            parts.append(getattr(keys, name))

    def joined(self) -> ItemKeys:
        """All of them, once: what was added is let go lane by lane."""
        return ItemKeys(*(np.concatenate(self._lanes.pop(name)) for name in ("high_N", "low_N")))


class ItemIndex:
    """Finds the rows of items in a table of N rows, of several of an item the last."""

    def __init__(self, keys: ItemKeys) -> None:
        self._row, is_last = _in_order(keys)
        self.num_rows = len(keys)
        if not is_last.all():
            self._row = self._row[is_last]
        self._high, self._low = keys.high_N[self._row], keys.low_N[self._row]

    def __len__(self) -> int:
        """The number of different items."""
        return len(self._high)

    def rows_of(self, keys: ItemKeys) -> NDArray[np.int64]:
        """The row of each item (N,), -1 for none."""
        found_N = np.full(len(keys), -1, np.int64)
        for begin in range(0, len(keys) if len(self._high) else 0, _LOOKED_UP):
            rows = slice(begin, begin + _LOOKED_UP)
            self._look_up(keys.part(rows), found_N[rows])
        return found_N

    def _look_up(self, keys: ItemKeys, found_N: NDArray[np.int64]) -> None:
        """Put the row of each item into `found_N`, as far as there is one."""
        # In order, they are looked up near one another in memory, which is three times as fast.
        order = np.argsort(keys.high_N)
        place_N = np.empty(len(keys), np.int64)
        place_N[order] = np.searchsorted(self._high, keys.high_N[order])
        for _ in range(2):
            # Where two items share a half, the second one is next to the first.
            here_N = np.minimum(place_N, len(self._high) - 1)
            is_it = (self._high[here_N] == keys.high_N) & (self._low[here_N] == keys.low_N)
            found_N[is_it] = self._row[here_N[is_it]]
            place_N += 1

    def holds(self, keys: ItemKeys) -> NDArray[np.bool_]:
        """Which items have a row (N,)."""
        is_there: NDArray[np.bool_] = self.rows_of(keys) >= 0
        return is_there

    def last_rows(self) -> NDArray[np.int64]:
        """The last row of every item, ascending."""
        return np.sort(self._row).astype(np.int64)


def first_rows(keys: ItemKeys) -> NDArray[np.integer[Any]]:
    """The first row of each row's item (N,)."""
    order, is_last = _in_order(keys)
    found = np.arange(len(order), dtype=order.dtype)
    if not is_last.all():
        begin = np.maximum.accumulate(np.where(np.append(True, is_last[:-1]), found, 0))
        found[order] = order[begin]
    return found


def are_first(keys: ItemKeys) -> NDArray[np.bool_]:
    """Which rows are the first ones of their items (N,)."""
    row_N = first_rows(keys)
    is_first_N: NDArray[np.bool_] = row_N == np.arange(len(row_N), dtype=row_N.dtype)
    return is_first_N


def _in_order(keys: ItemKeys) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
    """The rows in the order of their keys, those of an item as they are (N,), and whether each one is the last of its
    item (N,)."""
    size = len(keys)
    order: NDArray[np.integer[Any]] = np.empty(size, np.int32 if size < 2**31 else np.int64)
    is_last, begin = np.ones(size, bool), 0
    # Part by part: what sorting all at once takes is more than what is kept of it.
    part_N = (keys.high_N >> _PART).astype(np.uint8) if size > _BLOCK_ROWS else np.zeros(size, np.uint8)
    for part in range(int(part_N.max(initial=0)) + 1):
        rows = np.flatnonzero(part_N == part)
        high, low = keys.high_N[rows], keys.low_N[rows]
        here = np.argsort(high, kind="stable")
        is_same = high[here][1:] == high[here][:-1]
        if (low[here][1:][is_same] != low[here][:-1][is_same]).any():
            # One half of two different items is the same: it takes the other one to keep them apart.
            here = np.lexsort((low, high))
            is_same = high[here][1:] == high[here][:-1]
        is_same &= low[here][1:] == low[here][:-1]
        order[begin : begin + len(rows)] = rows[here]
        is_last[begin : begin + len(is_same)] = ~is_same
        begin += len(rows)
    return order, is_last


def rows_of_items(items: Iterable[tuple[str, str]]) -> pa.Table:
    """Items as a table: ITEM_SCHEMA."""
    columns = [list(column) for column in zip(*items, strict=True)] or [[], []]
    return pa.table(columns, schema=ITEM_SCHEMA)


def items_of(*tables: pa.Table) -> pa.Table:
    """The items of all rows of tables with shard and key: ITEM_SCHEMA."""
    return pa.concat_tables([table.select(ITEM_SCHEMA.names).cast(ITEM_SCHEMA) for table in tables])


def last_of_each(table: pa.Table) -> pa.Table:
    """The last row of every (shard, key), in the order of the rows; the table itself where each has one."""
    order, is_last = _in_order(ItemKeys.of(table))
    return table if is_last.all() else table.take(pa.array(np.sort(order[is_last])))


def by_item(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows in the order of their items, in an item as they are (N,), and where each one's item begins in that order
    (N,)."""
    number_N = ItemIndex(keys := ItemKeys.of(table)).rows_of(keys)
    order = np.argsort(number_N, kind="stable")
    is_first = np.diff(number_N[order], prepend=-1) != 0
    return order, np.maximum.accumulate(np.where(is_first, np.arange(len(table)), 0))


def with_shared_texts(schema: pa.Schema, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Tables of one schema, with one dictionary for all of each column that has them: else the name of a shard is in
    memory once a table."""
    whole, begin = pa.concat_tables([schema.empty_table(), *tables.values()]).unify_dictionaries(), 0
    found = dict[str, pa.Table]()
    for name, table in tables.items():
        found[name] = whole.slice(begin, len(table))
        begin += len(table)
    return found


def column_at(column: pa.ChunkedArray, row_N: NDArray[np.integer[Any]]) -> pa.Array:
    """The values of a column at these rows, null at -1; of texts in a dictionary the texts."""
    found = column.take(pa.array(row_N, mask=row_N < 0)).combine_chunks()
    return found.dictionary_decode() if pa.types.is_dictionary(found.type) else found


def are_in(table: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
    """Which rows of a table are about an item that has a row in another one (N,)."""
    keys = ItemKeys.of(table)
    if len(table) >= len(other):
        return ItemIndex(ItemKeys.of(other)).holds(keys)
    # An index of the smaller one is made.
    index, is_there = ItemIndex(keys), np.zeros(len(table), bool)
    rows = index.rows_of(ItemKeys.of(other))
    is_there[rows[rows >= 0]] = True
    found: NDArray[np.bool_] = is_there[index.rows_of(keys)]
    return found


def num_items(table: pa.Table) -> int:
    """The number of different items in a table."""
    return len(ItemIndex(ItemKeys.of(table)))


class _Hashes:
    """Two lanes of hashes of columns of texts; those of a dictionary once for all the blocks that have it."""

    def __init__(self) -> None:
        self._texts, self._lanes = pa.array([], pa.string()), _of_texts(pa.array([], pa.string()))

    def of(self, column: pa.Array) -> tuple[Words, Words]:
        if not isinstance(column, pa.DictionaryArray):
            return _of_texts(column)
        if not _is_same(column.dictionary, self._texts):
            self._texts, self._lanes = column.dictionary, _of_texts(column.dictionary)
        high, low = self._lanes
        code_N = column.indices.to_numpy()
        return high[code_N], low[code_N]


def _is_same(texts: pa.Array, others: pa.Array) -> bool:
    """Whether they are the same memory."""
    places = ([buffer and buffer.address for buffer in some.buffers()] for some in (texts, others))
    return (texts.offset, len(texts), next(places)) == (others.offset, len(others), next(places))


def _of_texts(texts: pa.Array) -> tuple[Words, Words]:
    """Two lanes of hashes of texts without nulls."""
    if not len(texts):
        # Arrow may give it no offsets at all.
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    _, offsets, content = texts.buffers()
    offset_N = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    length_N = np.diff(offset_N)
    num_words = -(-int(length_N.max()) // 8)
    if num_words * 8 * len(texts) > _BLOCK_BYTES and len(texts) > 1:
        half = len(texts) // 2
        parts = _of_texts(texts.slice(0, half)), _of_texts(texts.slice(half))
        return np.concatenate([parts[0][0], parts[1][0]]), np.concatenate([parts[0][1], parts[1][1]])
    # Each text's words of 8 bytes are read where they are; after the last one there are zeros to read.
    own = np.zeros(int(offset_N[-1] - offset_N[0]) + 8, np.uint8)
    if len(own) > 8:
        own[:-8] = np.frombuffer(content, np.uint8)[offset_N[0] : offset_N[-1]]
    words, begin_N = np.ndarray((len(own) - 7,), np.uint64, own, strides=(1,)), offset_N[:-1] - offset_N[0]
    # The length tells a text that ends in zeros from one that is padded with them.
    lanes = [_mixed(length_N.astype(np.uint64) + first, second) for first, second in zip(_FIRST, _SECOND, strict=True)]
    for place in range(num_words):
        rest_N = length_N - 8 * place
        word_N = words[np.minimum(begin_N + 8 * place, len(words) - 1)]
        if not (is_whole := bool(rest_N.min() >= 8)):
            # The bytes behind its end are those of the next text.
            over_N = (8 * np.clip(8 - rest_N, 0, 7)).astype(np.uint64)
            word_N = word_N << over_N >> over_N
        for lane, (first, second) in enumerate(zip(_FIRST, _SECOND, strict=True)):
            mixed_N = _mixed((lanes[lane] ^ word_N) * first, second)
            # A text has the hash that it has alone, whatever longer ones stand beside it.
            lanes[lane] = mixed_N if is_whole else np.where(rest_N > 0, mixed_N, lanes[lane])
    return lanes[0], lanes[1]


def _mixed(value: Words, factor: np.uint64) -> Words:
    """Every bit of a value spread over all bits. Different values stay different."""
    value = (value ^ (value >> _HALF)) * factor
    found: Words = value ^ (value >> _SHIFT)
    return found
