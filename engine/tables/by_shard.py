"""Items with a value each, grouped by shard: what a reader of one shard asks for, and no Python object an item."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BLOCK = 65_536


def places_of_texts(column: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int32]]:
    """The different texts of a column, sorted (S,), and the place of each row's among them (N,)."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = encoded.unify_dictionaries().chunks
    if not chunks:
        return pa.array([], pa.string()), np.empty(0, np.int32)
    names = chunks[-1].dictionary
    code_N = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    # A dictionary may have names that no row has.
    is_used = np.zeros(len(names), bool)
    is_used[code_N] = True
    order = pc.sort_indices(names).to_numpy().astype(np.int64)
    order = order[is_used[order]]
    place = np.empty(len(names), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return names.take(pa.array(order)), place[code_N]


class ByShard(Mapping[tuple[str, str], str]):
    """The value of every (shard, key) of a table with the columns shard, key and one more of texts; each item once."""

    def __init__(self, table: pa.Table, value: str) -> None:
        self.shards, place_N = places_of_texts(table["shard"])
        rows = table.select(["key", value])
        if (np.diff(place_N) < 0).any():
            rows = rows.take(pa.array(np.argsort(place_N, kind="stable")))
        self.rows = rows.rename_columns(["key", "value"])
        self._ends = np.bincount(place_N, minlength=len(self.shards)).cumsum()

    @staticmethod
    def of_items(items: Iterable[tuple[str, str]]) -> "ByShard":
        """Items with an empty value."""
        columns = [list(column) for column in zip(*items, strict=True)] or [[], []]
        texts = [*columns, [""] * len(columns[0])]
        return ByShard(pa.table([pa.array(t, pa.string()) for t in texts], names=["shard", "key", "value"]), "value")

    def _of(self, shard: str) -> pa.Table:
        # An array of Arrow compares with nothing: its texts are made one by one.
        place = bisect_left(range(len(self.shards)), shard, key=lambda number: self.shards[number].as_py())
        if place == len(self.shards) or self.shards[place].as_py() != shard:
            return self.rows.slice(0, 0)
        begin = int(self._ends[place - 1]) if place else 0
        return self.rows.slice(begin, int(self._ends[place]) - begin)

    def keys_in(self, shard: str) -> frozenset[str]:
        """The keys of a shard's items."""
        return frozenset(self._of(shard)["key"].to_pylist())

    def __getitem__(self, item: tuple[str, str]) -> str:
        rows = self._of(item[0])
        place = pc.index(rows["key"], item[1]).as_py()
        if place < 0:
            raise KeyError(item)
        value: str = rows["value"][place].as_py()
        return value

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        begin = 0
        for shard, end in zip(self.shards, self._ends.tolist(), strict=True):
            name = shard.as_py()
            yield from ((name, key) for key in self.rows["key"].slice(begin, end - begin).to_pylist())
            begin = end

    @property
    def different(self) -> list[str]:
        """The different values, sorted."""
        return sorted(pc.unique(self.rows["value"].cast(pa.string())).to_pylist())
