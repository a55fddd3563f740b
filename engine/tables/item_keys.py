"""Which rows of tables are about the same item, for tens of millions of rows: an item is 128 bits of a hash of its
shard and key, and no Python object.

The hash is of this process alone and is never written. Two of 10^7 different items have the same one with a
probability of 10^-25.

Shape suffixes: N rows, W words of 8 bytes, 2 lanes of 64 bits.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Words = NDArray[np.uint64]
ITEM_SCHEMA = pa.schema([("shard", pa.string()), ("key", pa.string())])
_BLOCK_ROWS = 65_536
_BLOCK_BYTES = 64 << 20
# Odd constants of SplitMix64 and of xxHash: each lane has its own.
_FIRST = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_SECOND = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT, _HALF = np.uint64(29), np.uint64(32)


class ItemKeys:
    """The keys of N rows. Rows of the same item, of whatever table, have the same."""

    def __init__(self, high_N: Words, low_N: Words) -> None:
        self.high_N, self.low_N = high_N, low_N

    @staticmethod
    def of(table: pa.Table) -> "ItemKeys":
        """Those of a table with the columns shard and key, which may be dictionaries."""
        shard, key = (_hashed(table[name]) for name in ("shard", "key"))
        pairs = zip(shard, key, _FIRST, _SECOND, strict=True)
        # A shard and a key that change places are another item.
        high_N, low_N = (_mixed(a * first ^ b, second) for a, b, first, second in pairs)
        return ItemKeys(high_N, low_N)

    @staticmethod
    def of_items(items: Sequence[tuple[str, str]]) -> "ItemKeys":
        """Those of (shard, key)."""
        return ItemKeys.of(rows_of_items(items))

    @staticmethod
    def of_texts(column: pa.ChunkedArray) -> "ItemKeys":
        """Those of a column of names of items, such as item_ids."""
        return ItemKeys(*_hashed(column))

    def __len__(self) -> int:
        return len(self.high_N)


class ItemIndex:
    """Finds the rows of items in a table of N rows, of several of an item the last."""

    def __init__(self, keys: ItemKeys) -> None:
        order = np.argsort(keys.high_N, kind="stable")
        high_N, low_N = keys.high_N[order], keys.low_N[order]
        is_same = high_N[1:] == high_N[:-1]
        if (low_N[1:][is_same] != low_N[:-1][is_same]).any():
            # One half of two different items is the same: it takes the other one to keep them apart.
            order = np.lexsort((keys.low_N, keys.high_N))
            high_N, low_N = keys.high_N[order], keys.low_N[order]
            is_same = high_N[1:] == high_N[:-1]
        is_same &= low_N[1:] == low_N[:-1]
        is_last = np.append(~is_same, True)[: len(order)]
        self.num_rows = len(keys)
        # Without a copy where every item has one row.
        self._high, self._low, self._row = (
            values if is_last.all() else values[is_last] for values in (high_N, low_N, order)
        )

    def __len__(self) -> int:
        """The number of different items."""
        return len(self._high)

    def rows_of(self, keys: ItemKeys) -> NDArray[np.int64]:
        """The row of each item (N,), -1 for none."""
        found_N = np.full(len(keys), -1, np.int64)
        if not len(self._high):
            return found_N
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
        return found_N

    def holds(self, keys: ItemKeys) -> NDArray[np.bool_]:
        """Which items have a row (N,)."""
        is_there: NDArray[np.bool_] = self.rows_of(keys) >= 0
        return is_there

    def last_rows(self) -> NDArray[np.int64]:
        """The last row of every item, ascending."""
        return np.sort(self._row)


def rows_of_items(items: Iterable[tuple[str, str]]) -> pa.Table:
    """Items as a table: ITEM_SCHEMA."""
    columns = [list(column) for column in zip(*items, strict=True)] or [[], []]
    return pa.table(columns, schema=ITEM_SCHEMA)


def items_of(*tables: pa.Table) -> pa.Table:
    """The items of all rows of tables with shard and key: ITEM_SCHEMA."""
    return pa.concat_tables([table.select(ITEM_SCHEMA.names).cast(ITEM_SCHEMA) for table in tables])


def last_of_each(table: pa.Table) -> pa.Table:
    """The last row of every (shard, key), in the order of the rows; the table itself where each has one."""
    index = ItemIndex(ItemKeys.of(table))
    return table if len(index) == len(table) else table.take(pa.array(index.last_rows()))


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


def column_at(column: pa.ChunkedArray, row_N: NDArray[np.int64]) -> pa.Array:
    """The values of a column at these rows, null at -1; of texts in a dictionary the texts."""
    found = column.take(pa.array(row_N, mask=row_N < 0)).combine_chunks()
    return found.dictionary_decode() if pa.types.is_dictionary(found.type) else found


def are_in(table: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
    """Which rows of a table are about an item that has a row in another one (N,)."""
    return ItemIndex(ItemKeys.of(other)).holds(ItemKeys.of(table))


def num_items(table: pa.Table) -> int:
    """The number of different items in a table."""
    return len(ItemIndex(ItemKeys.of(table)))


def _hashed(column: pa.ChunkedArray) -> tuple[Words, Words]:
    """Two lanes of hashes of a column of texts."""
    found: list[tuple[Words, Words]] = [(np.empty(0, np.uint64), np.empty(0, np.uint64))]
    for chunk in column.chunks:
        if isinstance(chunk, pa.DictionaryArray):
            lanes, code_N = _of_texts(chunk.dictionary), chunk.indices.to_numpy()
            found.append((lanes[0][code_N], lanes[1][code_N]))
        else:
            begins = range(0, len(chunk), _BLOCK_ROWS)
            found += [_of_texts(chunk.slice(begin, _BLOCK_ROWS)) for begin in begins]
    high, low = (np.concatenate(lane) for lane in zip(*found, strict=True))
    return high, low


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
