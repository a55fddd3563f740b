"""Any number of committed scores to the candidates: exactly the M lowest by (logit, shard, key), in bounded memory.

Two passes over the files, in parts that Ray spreads over the cluster. The first checks every file and reads the logit
column alone, for the M-th lowest logit and the histogram of all. The second gathers the rows up to that, from the row
groups whose statistics reach as low. Both keep what is lowest and merge in any tree, by the merge law of
`vaal.ranking.top_b`, so that the result is the same for any parts, files and row groups; memory depends on M and on the
size of a row group.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.errors import InputError
from engine.selection.parts import Share, deal, each, map_reduce
from engine.selection.sources import Source
from engine.storage.location import Location
from engine.tables.histogram import Histogram
from engine.tables.score_reader import open_scores
from vaal.ranking import Scored, top_b

Piece = TypeVar("Piece", bound=Sized)
ROWS_AT_ONCE = 1 << 18
"""Logits that a thread holds in the first pass, if they are of more than one row group."""

DRAW_FIELD = pa.field("draw", pa.int64(), nullable=False)


class FirstPass(NamedTuple):
    """Of F files, in their order: how many items can be picked (F,) int64, and their lowest logit (F,) float32,
    infinite where there are none; the lowest logits of all these items (K,) float32, in no order; and the histogram of
    all logits."""

    eligible_F: NDArray[np.int64]
    lowest_F: NDArray[np.float32]
    low_K: NDArray[np.float32]
    histogram: Histogram

    @property
    def num_eligible(self) -> int:
        return int(self.eligible_F.sum())

    def bound(self, size: int) -> float:
        """The `size`-th lowest logit; infinite when so many were not counted."""
        if size == 0:
            return -np.inf
        return float(np.partition(self.low_K, size - 1)[size - 1]) if size <= len(self.low_K) else np.inf


class RowQuery(NamedTuple):
    """The `size` lowest of the rows whose logit is at most `bound`, and, if `has_taken`, those that cannot be picked.

    `schema` begins with shard, key and logit; what else it has are columns of the files."""

    bound: float
    size: int
    schema: pa.Schema
    has_taken: bool


class SecondPass(NamedTuple):
    """Rows of scores files: the lowest, by (logit, shard, key); those that cannot be picked, by (shard, key); and those
    that were drawn, by their column `draw`."""

    lowest: pa.Table
    taken: pa.Table
    drawn: pa.Table


def count(folder: Location, sources: list[Source], size: int, on_progress: Share) -> FirstPass:
    """Check all files, count what can be picked, and find the `size` lowest logits of that.

    Raises:
        InputError: a file is missing or is not the committed one, or a logit is missing or NaN.
    """
    if not sources:
        return FirstPass(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32), Histogram())
    part = partial(_count_part, folder, size)
    found: FirstPass = map_reduce(part, partial(_add, _LowestLogits(size)), parts_of(sources), on_progress)
    return found


def gather(
    folder: Location, sources: list[Source], counts: FirstPass, query: RowQuery, on_progress: Share
) -> SecondPass:
    """The rows that are wanted, and those drawn, in the order that `SecondPass` says; `counts` are of these sources."""
    is_low_F = counts.lowest_F <= query.bound
    needed = [
        source
        for source, is_low in zip(sources, is_low_F.tolist(), strict=True)
        if is_low or len(source.draw_at) or (query.has_taken and len(source.taken))
    ]
    if not needed:
        return _nothing(query)
    part = partial(_gather_part, folder, query)
    found = map_reduce(part, partial(_merge_parts, query), parts_of(needed), on_progress)
    return SecondPass(
        first(found.lowest, query.size), _sorted(found.taken, "shard", "key"), _sorted(found.drawn, "draw")
    )


def parts_of(sources: list[Source]) -> list[list[Source]]:
    """The sources in the parts that are worked on at once."""
    return deal(sources, [source.record.scored for source in sources])


def _num_threads(folder: Location) -> int:
    """More than two would wait for one another on a disk, but on an object store most of them wait for it."""
    return 2 if folder.is_local else 16


class Lowest(Generic[Piece]):
    """The `size` lowest of pieces that come one after another, in memory of twice as many and a piece.

    `reduce(pieces, size)` joins pieces and keeps the `size` lowest, in no order.
    """

    def __init__(self, size: int, reduce: Callable[[list[Piece], int], Piece]) -> None:
        self._size, self._reduce, self._num_held = size, reduce, 0
        self._pieces: list[Piece] = []

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._num_held += len(piece)
        # Reducing at twice the size makes the whole a linear pass in memory of the size.
        if self._num_held >= 2 * self._size:
            self._pieces = [self.result()]
            self._num_held = len(self._pieces[0])

    def result(self) -> Piece:
        """In no order. Raises ValueError when nothing, not even an empty piece, was added."""
        return self._reduce(self._pieces, self._size)


class _LowestLogits(Lowest[NDArray[np.float32]]):
    def __init__(self, size: int) -> None:
        super().__init__(size, _lowest_values)
        self.cut = np.float32(np.inf)
        """What is above is not among them."""

    def add(self, piece: NDArray[np.float32]) -> None:
        super().add(piece)
        if self._pieces[0] is not piece and len(self._pieces) == 1:
            self.cut = self._pieces[0].max(initial=-np.inf)


def _lowest_values(pieces: list[NDArray[np.float32]], size: int) -> NDArray[np.float32]:
    held: NDArray[np.float32] = np.concatenate(pieces)
    return np.partition(held, size)[:size] if size < len(held) else held


def _lowest_rows(pieces: list[pa.Table], size: int) -> pa.Table:
    held = pa.concat_tables(pieces)
    return first(held, size) if size < len(held) else held


def _count_part(folder: Location, size: int, part: list[Source]) -> FirstPass:
    lows = _LowestLogits(size)
    return _add(lows, each(partial(_count_file, folder, lows), part, _num_threads(folder)))


def _add(lows: _LowestLogits, passes: Iterable[FirstPass]) -> FirstPass:
    eligible, lowest, histogram = list[NDArray[np.int64]](), list[NDArray[np.float32]](), Histogram()
    for found in passes:
        eligible.append(found.eligible_F)
        lowest.append(found.lowest_F)
        lows.add(found.low_K)
        histogram.merge(found.histogram)
    return FirstPass(np.concatenate(eligible), np.concatenate(lowest), lows.result(), histogram)


def _count_file(folder: Location, lows: _LowestLogits, source: Source) -> FirstPass:
    num_eligible, lowest, pieces = 0, np.float32(np.inf), [np.empty(0, np.float32)]
    histogram = Histogram()
    columns = ["logit", "key"] if len(source.taken) else ["logit"]
    with open_scores(folder, source.record, is_checked=True) as file:
        for groups in _groups_at_once(file.metadata):
            table = file.read_row_groups(groups, columns=columns, use_threads=False)
            logit: NDArray[np.float32] = table["logit"].to_numpy()
            # One NaN makes the minimum NaN.
            if table["logit"].null_count or np.isnan(logit.min(initial=np.inf)):
                raise _without_score(folder / source.record.file, file, groups)
            if len(source.taken):
                is_taken, is_labelled = (_is_in(table["key"], keys) for keys in (source.taken, source.labelled))
                histogram.add("labelled", logit[is_labelled])
                histogram.add("out", logit[is_taken & ~is_labelled])
                logit = logit[~is_taken]
            histogram.add("eligible", logit)
            num_eligible += len(logit)
            lowest = logit.min(initial=lowest)
            pieces.append(logit[logit <= lows.cut])
    return FirstPass(
        np.array([num_eligible], np.int64), np.array([lowest], np.float32), np.concatenate(pieces), histogram
    )


def _groups_at_once(metadata: pq.FileMetaData) -> Iterator[list[int]]:
    groups: list[int] = []
    num_rows = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if groups and num_rows + rows > ROWS_AT_ONCE:
            yield groups
            groups, num_rows = [], 0
        groups.append(group)
        num_rows += rows
    if groups:
        yield groups


def _without_score(file: Location, parquet: pq.ParquetFile, groups: list[int]) -> InputError:
    table = parquet.read_row_groups(groups, columns=["logit", "key"])
    bad = table.filter(pc.fill_null(pc.is_nan(table["logit"]), True))
    what = "missing" if bad["logit"][0].as_py() is None else "NaN"
    return InputError(
        f"{file}: the logit of {bad['key'][0]} is {what}; delete the file and the scores' manifest.json, then run: "
        "vaal score"
    )


def _is_in(keys: pa.ChunkedArray, others: pa.Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(keys, value_set=others).to_numpy()
    return found


def _gather_part(folder: Location, query: RowQuery, part: list[Source]) -> SecondPass:
    return _merge_parts(query, each(partial(_gather_file, folder, query), part, _num_threads(folder)))


def _merge(query: RowQuery, gathered: Iterable[SecondPass]) -> SecondPass:
    """What is lowest among them, and all that is taken and drawn. They are looked at one after another."""
    lowest, taken, drawn = Lowest(query.size, _lowest_rows), list[pa.Table](), list[pa.Table]()
    for found in chain([_nothing(query)], gathered):
        lowest.add(found.lowest)
        taken.append(found.taken)
        drawn.append(found.drawn)
    return SecondPass(lowest.result(), pa.concat_tables(taken), pa.concat_tables(drawn))


def _merge_parts(query: RowQuery, gathered: Iterable[SecondPass]) -> SecondPass:
    # In one piece each: Ray sends every piece by itself, and takes three times as long over some hundreds.
    return SecondPass(*(table.combine_chunks() for table in _merge(query, gathered)))


def _gather_file(folder: Location, query: RowQuery, source: Source) -> SecondPass:
    found, begin = list[SecondPass](), 0
    with open_scores(folder, source.record, is_checked=False) as file:
        for group, low in enumerate(_minima(file.metadata)):
            num_rows = file.metadata.row_group(group).num_rows
            is_taken = np.zeros(0, np.bool_)
            if len(source.taken):
                is_taken = _is_in(file.read_row_group(group, ["key"], use_threads=False)["key"], source.taken)
            end = begin + num_rows - int(is_taken.sum())
            here = slice(*np.searchsorted(source.draw_at, (begin, end)))
            places, begin = source.draw_at[here] - begin, end
            takes = np.flatnonzero(is_taken) if query.has_taken else np.empty(0, np.intp)
            if low > query.bound and not len(places) and not len(takes):
                continue
            table = file.read_row_group(group, query.schema.names[1:], use_threads=False)
            is_low = table["logit"].to_numpy() <= query.bound
            if len(is_taken):
                is_low &= ~is_taken
                places = np.flatnonzero(~is_taken)[places]
            rows = _Rows(table, source.record.shard, query.schema)
            draws = rows.take(places).append_column(DRAW_FIELD, pa.array(source.draw_number[here]))
            found.append(SecondPass(rows.take(np.flatnonzero(is_low)), rows.take(takes), draws))
    return _merge(query, found)


def _minima(metadata: pq.FileMetaData) -> Iterator[float]:
    """The lowest logit of every row group; minus infinity where the file does not say."""
    names = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    place = names.index("logit")
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(place).statistics
        yield statistics.min if statistics is not None and statistics.has_min_max else -np.inf


class _Rows(NamedTuple):
    """The rows of a shard's row group, to be taken as `schema`."""

    table: pa.Table
    shard: str
    schema: pa.Schema

    def take(self, rows: NDArray[np.intp]) -> pa.Table:
        if not len(rows):
            return self.schema.empty_table()
        found = self.table.take(pa.array(rows))
        return pa.table([pa.repeat(self.shard, len(rows)), *found.columns], schema=self.schema)


def _nothing(query: RowQuery) -> SecondPass:
    none = query.schema.empty_table()
    return SecondPass(none, none, none.append_column(DRAW_FIELD, pa.array([], pa.int64())))


def first(table: pa.Table, size: int) -> pa.Table:
    """The `size` lowest rows by (logit, shard, key)."""
    names = (table[name].to_numpy() for name in ("shard", "key"))
    return table.take(pa.array(top_b(Scored(table["logit"].to_numpy(), *names), size)))


def _sorted(table: pa.Table, *columns: str) -> pa.Table:
    return table.sort_by([(column, "ascending") for column in columns])
