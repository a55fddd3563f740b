"""The pool's shards as columns: a million of them take some 200 MiB, where a Python object each would take gigabytes.

Shape suffix: N shards.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.pool.shard import Shard
from engine.storage.location import Location
from engine.tables.columns import RowBatches, required

SHARDS_SCHEMA = pa.schema(
    [
        *required(pa.string(), "shard", "url"),
        *required(pa.int64(), "size_bytes"),
        *required(pa.string(), "etag_or_mtime"),
        pa.field("num_items", pa.int64()),
        *required(pa.int64(), "mtime_ns"),
        *required(pa.string(), "version"),
        *required(pa.int32(), "joined"),
        pa.field("left", pa.int32()),
        pa.field("why_left", pa.string()),
    ]
)
_BATCH = 65_536


class Shards(Sequence[Shard]):
    """Shards in an order; a `Shard` is made where one is read."""

    def __init__(self, table: pa.Table) -> None:
        """Of a table of SHARDS_SCHEMA."""
        self.table = table.combine_chunks()
        self._rows = RowBatches(self.table)

    @staticmethod
    def of(shards: Iterable[Shard]) -> "Shards":
        """These shards in their order."""
        if isinstance(shards, Shards):
            return shards
        columns = [list(column) for column in zip(*shards, strict=True)] or [[] for _ in SHARDS_SCHEMA]
        return Shards(pa.table(columns, schema=SHARDS_SCHEMA))

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the batches, each of which would be sent with all of the table.
        return Shards, (self.table,)

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, number: int) -> Shard: ...
    @overload
    def __getitem__(self, number: slice) -> "Shards": ...
    def __getitem__(self, number: int | slice) -> "Shard | Shards":
        if isinstance(number, slice):
            return self.take(np.arange(len(self))[number])
        return Shard(*self._rows.row(range(len(self))[number]))

    def __iter__(self) -> Iterator[Shard]:
        for batch in self.table.to_batches(_BATCH):
            yield from map(Shard, *(column.to_pylist() for column in batch.columns))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Shards):
            return bool(self.table.equals(other.table))
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def name_of(self, number: int) -> str:
        """The name of one shard."""
        name: str = self.names[number].as_py()
        return name

    @property
    def names(self) -> pa.ChunkedArray:
        """The names."""
        return self.table["shard"]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The sizes in bytes (N,)."""
        values: NDArray[np.int64] = self.table["size_bytes"].to_numpy()
        return values

    @property
    def times(self) -> NDArray[np.int64]:
        """The times as listings of their folders show them, nanoseconds (N,): see `Shard`."""
        values: NDArray[np.int64] = self.table["mtime_ns"].to_numpy()
        return values

    @property
    def num_bytes(self) -> int:
        """Their size together."""
        return int(self.sizes.sum())

    @property
    def have_left(self) -> NDArray[np.bool_]:
        """Which left the pool, or leave it in a later round (N,)."""
        return _mask(self.table["left"].is_valid())

    def left_as(self, why: str) -> NDArray[np.bool_]:
        """Which left the pool for this reason (N,)."""
        return _mask(pc.fill_null(pc.equal(self.table["why_left"], why), fill_value=False))

    def are_in(self, number: int) -> NDArray[np.bool_]:
        """Which are in the pool of a round (N,): see `Shard.is_in`."""
        joined_N = self.table["joined"].to_numpy()
        left_N = pc.fill_null(self.table["left"], np.iinfo(np.int32).max).to_numpy()
        is_in_N: NDArray[np.bool_] = (joined_N <= number) & (number < left_N)
        return is_in_N

    def in_round(self, number: int) -> "Shards":
        """Those that are in the pool of a round."""
        return self.where(self.are_in(number))

    def take(self, place_M: NDArray[np.int64]) -> "Shards":
        """Those at these places, in their order."""
        return Shards(self.table.take(pa.array(place_M)))

    def where(self, is_wanted_N: NDArray[np.bool_]) -> "Shards":
        """Those of which that is true."""
        return self if is_wanted_N.all() else Shards(self.table.filter(pa.array(is_wanted_N, pa.bool_())))

    def places_of(self, names: Any) -> NDArray[np.int64]:
        """The place of the shard of each name, of an Arrow array or any iterable (M,); -1 for none."""
        place_M = pc.fill_null(pc.index_in(_texts(names), value_set=self.names), -1)
        found: NDArray[np.int64] = place_M.to_numpy().astype(np.int64)
        return found

    def are_named(self, names: Any) -> NDArray[np.bool_]:
        """Which have one of these names, of an Arrow array or any iterable (N,)."""
        return _mask(pc.is_in(self.names, value_set=_texts(names)))

    def find(self, names: Iterable[str]) -> dict[str, Shard]:
        """The shards of these names, without names that no shard has: for few of them."""
        wanted = sorted(set(names))
        places = zip(wanted, self.places_of(wanted).tolist(), strict=True)
        return {name: self[place] for name, place in places if place >= 0}

    def named(self, name: str) -> Shard:
        """The shard of this name, by a search in shards that are sorted by name. Raises KeyError without one."""
        place = bisect_left(range(len(self)), name, key=self.name_of)
        if place == len(self) or self.name_of(place) != name:
            raise KeyError(name)
        return self[place]

    def with_column(self, name: str, values: Any) -> "Shards":
        """The same with other values (N,) in a column: a NumPy or Arrow array, or one value for all."""
        place, field = SHARDS_SCHEMA.get_field_index(name), SHARDS_SCHEMA.field(name)
        if not isinstance(values, np.ndarray | pa.Array | pa.ChunkedArray):
            values = pa.repeat(pa.scalar(values, field.type), len(self))
        values = values.cast(field.type) if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        return Shards(self.table.set_column(place, field, values))

    def merged(self, others: Iterable[Shard]) -> "Shards":
        """With these in the places of those of the same names, or added; sorted by name."""
        new = Shards.of(others)
        kept = self.where(new.places_of(self.names) < 0)
        return Shards(pa.concat_tables([kept.table, new.table])).sorted()

    def sorted(self) -> "Shards":
        """Sorted by name."""
        order = pc.sort_indices(self.names).to_numpy().astype(np.int64)
        return self if (np.diff(order) == 1).all() else self.take(order)

    def at_root(self, root: str) -> "Shards":
        """Below the root of the pool, which may have moved: one that was elsewhere has its bytes looked at."""
        if not root or not len(self):
            return self
        folder = Location.of(root).url.rstrip("/")
        urls = pc.binary_join_element_wise(folder, self.names, "/")
        is_here_N = _mask(pc.equal(urls, self.table["url"]))
        if is_here_N.all():
            return self
        mtime_N = np.where(is_here_N, self.times, 0)
        return self.with_column("url", urls).with_column("mtime_ns", mtime_N)

    def with_new_versions(self) -> "Shards":
        """With versions of their own for their present sizes and marks: see `engine.pool.manifest.new_version`."""
        sizes, marks = self.table["size_bytes"].cast(pa.string()), self.table["etag_or_mtime"]
        return self.with_column("version", pc.binary_join_element_wise(sizes, marks, "\0"))

    def estimated_items(self, known: "Shards | None" = None) -> int:
        """Their items: counted for those that have been scanned, estimated by bytes for others, from how many items
        scanned ones have. `known` are all that may be asked for that, where they are more."""
        asked, is_counted_N = known or self, _mask(self.table["num_items"].is_valid())
        counted = pc.sum(asked.table["num_items"]).as_py() or 0
        if not counted:
            # At least one item in each other shard.
            return int(np.count_nonzero(~is_counted_N))
        scanned_bytes = int(asked.sizes[_mask(asked.table["num_items"].is_valid())].sum())
        here, others_bytes = pc.sum(self.table["num_items"]).as_py() or 0, int(self.sizes[~is_counted_N].sum())
        return int(here + round(counted * others_bytes / scanned_bytes))


NO_SHARDS = Shards.of([])


def _texts(names: Any) -> pa.Array | pa.ChunkedArray:
    texts = names if isinstance(names, pa.Array | pa.ChunkedArray) else pa.array(list(names), pa.string())
    return texts.cast(pa.string()) if pa.types.is_dictionary(texts.type) else texts


def _mask(values: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = values.to_numpy(zero_copy_only=False)
    return found
