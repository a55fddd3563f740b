"""The committed scores files as a selection reads them, with the items that cannot be picked and those drawn."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.decisions import never_picked
from engine.storage.location import Location
from engine.tables.item_keys import rows_of_items
from engine.tables.scores import ShardRecord, pack, unpack
from engine.tables.shard_records import records_in, table_of

_NONE = np.empty(0, np.int64)


class Source(NamedTuple):
    """A committed scores file: its record, the keys that cannot be picked, those of them that have a label, those of
    these that were picked for uncertainty, draws, and which taken rows are asked for; the keys that select.exclude
    keeps out, of which some may be taken too; and whether select.where keeps out all of its items: see
    `engine.selection.kept_out`.

    `draw_at` are the places of drawn rows among the rows of the file that can be picked, ascending; `draw_number` are
    the numbers of these draws. `taken_at` are places among the taken rows of the file by key, ascending.
    """

    record: ShardRecord
    taken: pa.Array
    labelled: pa.Array
    uncertain: pa.Array = pa.array([], pa.string())
    draw_at: NDArray[np.int64] = _NONE
    draw_number: NDArray[np.int64] = _NONE
    taken_at: NDArray[np.int64] = _NONE
    excluded: pa.Array = pa.array([], pa.string())
    is_out: bool = False

    @property
    def is_open(self) -> bool:
        """Whether all of its items can be picked."""
        return not (self.is_out or len(self.taken) or len(self.excluded))

    def fates(self, table: pa.Table) -> "Fates":
        """What may become of N rows of the file, which need the column key unless all can be picked."""
        none = np.zeros(len(table), np.bool_)
        sets = (self.taken, self.labelled, self.uncertain, self.excluded)
        taken_N, labelled_N, uncertain_N, excluded_N = (
            pc.is_in(table["key"], value_set=names).to_numpy() if len(names) else none for names in sets
        )
        excluded_N = excluded_N & ~taken_N
        out_N = ~taken_N & ~excluded_N if self.is_out else none
        return Fates(taken_N, labelled_N, uncertain_N, excluded_N, out_N)


class Fates(NamedTuple):
    """N rows of a file, each (N,): which are taken, as `Source` says, which of these have a label, and which of these
    were picked for uncertainty; of the others, which are excluded, and which select.where keeps out."""

    is_taken_N: NDArray[np.bool_]
    is_labelled_N: NDArray[np.bool_]
    is_uncertain_N: NDArray[np.bool_]
    is_excluded_N: NDArray[np.bool_]
    is_out_N: NDArray[np.bool_]

    @property
    def is_free(self) -> NDArray[np.bool_]:
        """Which can be picked."""
        return ~(self.is_taken_N | self.is_kept_out)

    @property
    def is_kept_out(self) -> NDArray[np.bool_]:
        """Which are in no count of the pool."""
        return self.is_excluded_N | self.is_out_N


class Grouped(NamedTuple):
    """Values of F files, one file after another; those of a file end at its `end_F`."""

    values: pa.Array
    end_F: NDArray[np.int64]

    @staticmethod
    def of(file_N: NDArray[np.integer[Any]], values: pa.Array, num_files: int) -> "Grouped":
        """Values (N,) and the file of each, those of a file in the order given; without those of file -1."""
        order = np.argsort(file_N, kind="stable")[np.count_nonzero(file_N < 0) :]
        ends = np.bincount(file_N[file_N >= 0], minlength=num_files).cumsum()
        is_as_given = len(order) == len(values) and (np.diff(order) == 1).all()
        return Grouped(values if is_as_given else values.take(pa.array(order)), ends)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many values each file has (F,)."""
        found: NDArray[np.int64] = np.diff(self.end_F, prepend=0)
        return found

    @property
    def files(self) -> NDArray[np.int64]:
        """The file of each value (N,)."""
        return np.repeat(np.arange(len(self.end_F)), self.counts)

    def at(self, begin: int, end: int) -> pa.Array:
        """The values of the files from `begin` to before `end`."""
        first = int(self.end_F[begin - 1]) if begin else 0
        return self.values.slice(first, (int(self.end_F[end - 1]) if end else 0) - first)

    def part(self, begin: int, end: int) -> "Grouped":
        """These files alone."""
        return Grouped(self.at(begin, end), self.end_F[begin:end] - (self.end_F[begin - 1] if begin else 0))

    def where(self, is_wanted_F: NDArray[np.bool_]) -> "Grouped":
        """Those of these files alone."""
        kept = self.values.filter(pa.array(np.repeat(is_wanted_F, self.counts)))
        return Grouped(kept, self.counts[is_wanted_F].cumsum())

    def joined(self, other: "Grouped") -> "Grouped":
        """With the values of another one behind those of each file."""
        file_N, values = np.concatenate([self.files, other.files]), pa.concat_arrays([self.values, other.values])
        return Grouped.of(file_N, values, len(self.end_F))


class Sources(Sequence[Source]):
    """The committed scores files of F shards, as columns; a `Source` is made where one is read."""

    def __init__(self, records: pa.Table, columns: dict[str, Grouped], is_out_F: Any = np.False_) -> None:
        """Of records, RECORDS_SCHEMA, and values by the field of `Source` that they are; a label's key is in `labelled`
        alone, although it is taken. `is_out_F`: which files select.where keeps out."""
        none = np.zeros(len(records), np.int64)
        empty = {name: Grouped(pa.array([], kind), none) for name, kind in _COLUMNS.items()}
        self.records, self.columns = records, {**empty, **columns}
        self.is_out_F: NDArray[np.bool_] = np.broadcast_to(is_out_F, len(records))

    @staticmethod
    def of(sources: Iterable[Source]) -> "Sources":
        """These in their order."""
        listed = list(sources)
        columns = dict[str, Grouped]()
        for name, kind in _COLUMNS.items():
            parts = [pa.array(getattr(source, name), kind) for source in listed]
            ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
            columns[name] = Grouped(pa.concat_arrays([pa.array([], kind), *parts]), ends)
        records = table_of(source.record for source in listed)
        return Sources(records, columns, np.array([source.is_out for source in listed], bool))

    def __reduce__(self) -> tuple[Any, ...]:
        # Of a slice of a column all of the column would be sent.
        columns = {name: (pack(pa.table({"": c.values})), c.end_F) for name, c in self.columns.items() if len(c.values)}
        return _unpacked, (pack(self.records), columns, self.is_out_F.copy())

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, number: int) -> Source: ...
    @overload
    def __getitem__(self, number: slice) -> "Sources": ...
    def __getitem__(self, number: int | slice) -> "Source | Sources":
        if isinstance(number, int):
            place = range(len(self))[number]
            return next(iter(self[place : place + 1]))
        begin, end, _ = number.indices(len(self))
        columns = {name: column.part(begin, end) for name, column in self.columns.items()}
        return Sources(self.records.slice(begin, end - begin), columns, self.is_out_F[begin:end])

    def __iter__(self) -> Iterator[Source]:
        for place, record in enumerate(records_in(self.records)):
            here = {name: column.at(place, place + 1) for name, column in self.columns.items()}
            taken = pa.concat_arrays([here["taken"], here["labelled"]])
            numbers = {name: here.pop(name).to_numpy() for name in _NUMBERS}
            yield Source(record, **{**here, "taken": taken}, **numbers, is_out=bool(self.is_out_F[place]))

    @property
    def names(self) -> pa.ChunkedArray:
        """The names of the shards."""
        return self.records["shard"]

    @property
    def num_scored(self) -> int:
        """The rows of all files."""
        return int(pc.sum(self.records["scored"]).as_py() or 0)

    @property
    def num_taken(self) -> NDArray[np.int64]:
        """How many keys are taken in each file (F,); one that is known twice counts twice."""
        return self.columns["taken"].counts + self.columns["labelled"].counts

    def where(self, is_wanted_F: NDArray[np.bool_]) -> "Sources":
        """Those of which that is true."""
        if is_wanted_F.all():
            return self
        columns = {name: column.where(is_wanted_F) for name, column in self.columns.items()}
        return Sources(self.records.filter(pa.array(is_wanted_F)), columns, self.is_out_F[is_wanted_F])

    def with_columns(self, **columns: Grouped) -> "Sources":
        """The same with other values."""
        return Sources(self.records, {**self.columns, **columns}, self.is_out_F)

    def with_out(self, is_out_F: NDArray[np.bool_]) -> "Sources":
        """The same where select.where keeps these out."""
        return Sources(self.records, self.columns, is_out_F)

    def grouped(self, table: pa.Table) -> Grouped:
        """The keys of a table with shard and key, by file."""
        return Grouped.of(_files_of(table["shard"], self.names), _array(table["key"]), len(self))


_NUMBERS = ("draw_at", "draw_number", "taken_at")
_COLUMNS = {
    **dict.fromkeys(("taken", "labelled", "uncertain", "excluded"), pa.string()),
    **dict.fromkeys(_NUMBERS, pa.int64()),
}


def _unpacked(records: bytes, columns: dict[str, tuple[bytes, NDArray[np.int64]]], is_out_F: NDArray[Any]) -> Sources:
    found = {name: Grouped(_array(unpack(values)[0]), end_F) for name, (values, end_F) in columns.items()}
    return Sources(unpack(records), found, is_out_F)


def _array(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.combine_chunks()
    return pa.concat_arrays(chunks.chunks) if isinstance(chunks, pa.ChunkedArray) else chunks


def _files_of(shards: pa.ChunkedArray, names: pa.ChunkedArray) -> NDArray[np.int32]:
    """The place of each shard among the names (N,), -1 for none."""
    if not pa.types.is_dictionary(shards.type):
        found: NDArray[np.int32] = pc.fill_null(pc.index_in(shards, value_set=names), -1).to_numpy()
        return found
    chunks = shards.unify_dictionaries().chunks
    if not chunks:
        return np.empty(0, np.int32)
    place = pc.fill_null(pc.index_in(chunks[0].dictionary, value_set=names), -1).to_numpy()
    return np.concatenate([place[chunk.indices.to_numpy()] for chunk in chunks])


class Draws(NamedTuple):
    """N random items in the order of drawing: the number of the source (N,) int64, and the place among its items that
    can be picked (N,) int64."""

    source_N: NDArray[np.int64]
    at_N: NDArray[np.int64]


def sources_of(
    home: Location, records: pa.Table, labelled: pa.Table, uncertain: pa.Table, picked_before: pa.Table
) -> Sources:
    """A source for each record, RECORDS_SCHEMA sorted by shard. Items that are labelled, were picked before or are
    never to be picked are taken; `uncertain` are the labelled ones that were picked for uncertainty."""
    sources = Sources(records, {})
    never = sources.grouped(rows_of_items(never_picked(home)))
    return sources.with_columns(
        taken=sources.grouped(picked_before).joined(never),
        labelled=sources.grouped(labelled),
        uncertain=sources.grouped(uncertain),
    )


def without(sources: Sources, picks: pa.Table) -> Sources:
    """The sources, where these items are taken too."""
    return sources.with_columns(taken=sources.columns["taken"].joined(sources.grouped(picks)))


def with_draws(sources: Sources, draws: Sequence[Draws]) -> Sources:
    """The sources with all these draws, which are numbered in order."""
    source_N, at_N = map(np.concatenate, zip(*draws, strict=True))
    order = np.lexsort((at_N, source_N))
    found = (Grouped.of(source_N[order], pa.array(values), len(sources)) for values in (at_N[order], order))
    return sources.with_columns(**dict(zip(("draw_at", "draw_number"), found, strict=True)))


def with_taken(sources: Sources, taken_F: NDArray[np.int64], most: int, seed: int) -> Sources:
    """The sources asked for what is taken, of which `taken_F` (F,) says how many rows each has: for all of it, or for
    `most` random ones where that is more."""
    end_F, total = np.cumsum(taken_F), int(taken_F.sum())
    at_L = np.arange(total)
    if total > most:
        at_L = np.sort(np.random.default_rng([seed, most]).choice(total, most, replace=False))
    file_L = np.searchsorted(end_F, at_L, side="right")
    return sources.with_columns(taken_at=Grouped.of(file_L, pa.array(at_L - (end_F - taken_F)[file_L]), len(sources)))
