"""Any number of committed scores to the candidates: exactly the M lowest by (logit, shard, key), in bounded memory.

Two passes read the files, in parts that Ray spreads over the cluster. The first pass checks every file and reads only
the logits: it finds the M-th lowest logit and a histogram of all. The second pass collects the rows up to that logit,
from the row groups whose statistics reach as low. Both keep the lowest and merge in any tree, by the merge law of
`vaal.ranking.top_b`. The result is therefore the same for any parts, files and row groups, and memory depends on M and
on the size of a row group.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.selection.collecting import Collected, Collector, Fates, Wish, merged
from engine.selection.parts import Share, deal, each, map_reduce
from engine.selection.sources import Source
from engine.storage.location import Location
from engine.tables.histogram import Histogram
from engine.tables.score_reader import damaged, open_scores
from vaal.ranking import Scored, top_b

Piece = TypeVar("Piece", bound=Sized)
GROUPS_AT_ONCE = 16
"""Row groups whose logits a thread holds in the first pass."""
DRAW_FIELD = pa.field("draw", pa.int64(), nullable=False)


class FirstPass(NamedTuple):
    """F files in order: how many items can be picked (F,) int64, and their lowest logit (F,) float32, infinite where
    there are none; the lowest logits of all these items (K,) float32, in no order; the histogram of all logits; and
    what the completion needs."""

    eligible_F: NDArray[np.int64]
    lowest_F: NDArray[np.float32]
    low_K: NDArray[np.float32]
    histogram: Histogram
    found: Collected

    @property
    def num_eligible(self) -> int:
        return int(self.eligible_F.sum())

    def bound(self, size: int) -> float:
        """The `size`-th lowest logit; infinite when fewer are known."""
        if size == 0:
            return -np.inf
        return float(np.partition(self.low_K, size - 1)[size - 1]) if size <= len(self.low_K) else np.inf


class RowQuery(NamedTuple):
    """The `size` lowest rows with a logit of at most `bound`, and, if `has_taken`, the rows that cannot be picked.

    `schema` has shard first, then columns of the files, key and logit among them."""

    bound: float
    size: int
    schema: pa.Schema
    has_taken: bool


class SecondPass(NamedTuple):
    """Rows of scores files: the lowest, sorted by (logit, shard, key); those that cannot be picked, by (shard, key);
    the drawn ones, by their column `draw`."""

    lowest: pa.Table
    taken: pa.Table
    drawn: pa.Table


def count(folder: Location, sources: list[Source], wish: Wish, on_progress: Share) -> FirstPass:
    """Check all files, count what can be picked, and find what is wished for of that.

    Raises InputError if a file is missing or is not the committed one, or a logit is missing or NaN.
    """
    part, add = partial(_count_part, folder, wish), partial(_join, wish)
    found: FirstPass = map_reduce(part, add, parts_of(sources), on_progress)
    return found


def gather(
    folder: Location, sources: list[Source], counts: FirstPass, query: RowQuery, on_progress: Share
) -> SecondPass:
    """The rows of the query and the drawn rows, sorted as in `SecondPass`. `counts` are those of these sources."""
    is_low_F = counts.lowest_F <= query.bound
    needed = [
        source
        for source, is_low in zip(sources, is_low_F.tolist(), strict=True)
        if is_low or len(source.draw_at) or (query.has_taken and len(source.taken))
    ]
    part = partial(_gather_part, folder, query)
    found = map_reduce(part, partial(_merge, query), parts_of(needed), on_progress)
    taken = found.taken.sort_by([("shard", "ascending"), ("key", "ascending")])
    return SecondPass(first(found.lowest, query.size), taken, found.drawn.sort_by("draw"))


def parts_of(sources: list[Source]) -> list[list[Source]]:
    """The sources, divided into the parts that run at the same time."""
    return deal(sources, [source.record.scored for source in sources])


def _num_threads(folder: Location) -> int:
    """On a disk more than two would wait for one another; on an object store most of them wait for the store."""
    return 2 if folder.is_local else 16


class Lowest(Generic[Piece]):
    """The `size` lowest of pieces that are added one by one, in the memory of twice as many and a piece.

    `reduce(pieces, size)` joins pieces and keeps the `size` lowest, in no order.
    """

    def __init__(self, size: int, reduce: Callable[[list[Piece], int], Piece]) -> None:
        self._size, self._reduce, self._num_held = size, reduce, 0
        self._pieces: list[Piece] = []

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._num_held += len(piece)
        # Reducing at twice the size keeps the total time linear.
        if self._num_held >= 2 * self._size:
            self._pieces = [self.result()]
            self._num_held = len(self._pieces[0])

    def result(self) -> Piece:
        """The lowest, in no order. Raises ValueError when no piece, not even an empty one, was added."""
        return self._reduce(self._pieces, self._size)


class _LowestLogits(Lowest[NDArray[np.float32]]):
    """Logits above `cut` are not among the lowest."""

    def __init__(self, size: int) -> None:
        super().__init__(size, _lowest_values)
        self.cut = np.float32(np.inf)

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


def _count_part(folder: Location, wish: Wish, part: list[Source]) -> FirstPass:
    lows, collector = _LowestLogits(wish.num_lowest), Collector(wish)
    return _add(lows, collector, each(partial(_count_file, folder, lows, collector), part, _num_threads(folder)))


def _join(wish: Wish, passes: Iterable[FirstPass]) -> FirstPass:
    return _add(_LowestLogits(wish.num_lowest), Collector(wish), passes)


def _add(lows: _LowestLogits, collector: Collector, passes: Iterable[FirstPass]) -> FirstPass:
    eligible, lowest, histogram = [np.empty(0, np.int64)], [np.empty(0, np.float32)], Histogram()
    lows.add(lowest[0])
    for found in passes:
        collector.add(found.found, sum(map(len, eligible)))
        eligible.append(found.eligible_F)
        lowest.append(found.lowest_F)
        lows.add(found.low_K)
        histogram.merge(found.histogram)
    return FirstPass(np.concatenate(eligible), np.concatenate(lowest), lows.result(), histogram, collector.result())


def _count_file(folder: Location, lows: _LowestLogits, collector: Collector, source: Source) -> FirstPass:
    num_eligible, lowest, pieces, histogram = 0, np.float32(np.inf), [np.empty(0, np.float32)], Histogram()
    columns = ["logit", *collector.wish.columns, *(["key"] if len(source.taken) else [])]
    found = list[Collected]()
    with open_scores(folder, source.record, is_checked=True) as file:
        for begin in range(0, file.num_row_groups, GROUPS_AT_ONCE):
            groups = list(range(begin, min(begin + GROUPS_AT_ONCE, file.num_row_groups)))
            table = file.read_row_groups(groups, columns=columns, use_threads=False)
            logit: NDArray[np.float32] = table["logit"].to_numpy()
            # One NaN makes the minimum NaN.
            if table["logit"].null_count or np.isnan(logit.min(initial=np.inf)):
                table = file.read_row_groups(groups, columns=["logit", "key"])
                bad = table.filter(pc.fill_null(pc.is_nan(table["logit"]), True)).slice(0, 1).to_pylist()[0]
                what = "missing" if bad["logit"] is None else "NaN"
                raise damaged(folder / source.record.file, f"the logit of {bad['key']} is {what}")
            fates = _fates(table, source)
            if collector.wish.columns:
                found.append(collector.look(source.record.shard, table, fates, num_eligible))
            if len(source.taken):
                histogram.add("labelled", logit[fates.is_labelled_N])
                histogram.add("out", logit[fates.is_taken_N & ~fates.is_labelled_N])
                logit = logit[~fates.is_taken_N]
            histogram.add("eligible", logit)
            num_eligible += len(logit)
            lowest = logit.min(initial=lowest)
            pieces.append(logit[logit <= lows.cut])
    lowest_F = np.array([lowest], np.float32)
    whole = merged(found, collector.wish)
    return FirstPass(np.array([num_eligible], np.int64), lowest_F, np.concatenate(pieces), histogram, whole)


def _fates(table: pa.Table, source: Source) -> Fates:
    sets = (source.taken, source.labelled, source.uncertain)
    none = np.zeros(len(table), np.bool_)
    return Fates(*(_is_in(table["key"], keys) if len(keys) else none for keys in sets))


def _is_in(keys: pa.ChunkedArray, others: pa.Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(keys, value_set=others).to_numpy()
    return found


def _gather_part(folder: Location, query: RowQuery, part: list[Source]) -> SecondPass:
    return _merge(query, each(partial(_gather_file, folder, query), part, _num_threads(folder)))


def _merge(query: RowQuery, gathered: Iterable[SecondPass]) -> SecondPass:
    """The lowest of all, and everything that is taken or drawn. Takes one at a time."""
    none = query.schema.empty_table()
    lowest, taken = Lowest(query.size, _lowest_rows), [none]
    drawn = [none.append_column(DRAW_FIELD, pa.array([], pa.int64()))]
    lowest.add(none)
    for found in gathered:
        lowest.add(found.lowest)
        taken.append(found.taken)
        drawn.append(found.drawn)
    # Each table in one piece: Ray sends every piece separately, and takes three times as long for some hundreds.
    tables = (lowest.result(), pa.concat_tables(taken), pa.concat_tables(drawn))
    return SecondPass(*(table.combine_chunks() for table in tables))


def _gather_file(folder: Location, query: RowQuery, source: Source) -> SecondPass:
    found, begin = list[SecondPass](), 0
    with open_scores(folder, source.record, is_checked=False) as file:
        for group, low in enumerate(_minima(file.metadata)):
            is_taken = np.zeros(file.metadata.row_group(group).num_rows, np.bool_)
            if len(source.taken):
                is_taken = _is_in(file.read_row_group(group, ["key"], use_threads=False)["key"], source.taken)
            end = begin + int(np.count_nonzero(~is_taken))
            here = slice(*np.searchsorted(source.draw_at, (begin, end)))
            places, begin = source.draw_at[here] - begin, end
            takes = np.flatnonzero(is_taken) if query.has_taken else np.empty(0, np.intp)
            if low > query.bound and not len(places) and not len(takes):
                continue
            table = file.read_row_group(group, query.schema.names[1:], use_threads=False)
            lows = np.flatnonzero((table["logit"].to_numpy() <= query.bound) & ~is_taken)
            take = partial(_take, table, source.record.shard, query.schema)
            draws = take(np.flatnonzero(~is_taken)[places])
            draws = draws.append_column(DRAW_FIELD, pa.array(source.draw_number[here]))
            found.append(SecondPass(take(lows), take(takes), draws))
    return _merge(query, found)


def _minima(metadata: pq.FileMetaData) -> Iterator[float]:
    """The lowest logit of every row group; minus infinity where the file does not say."""
    place = metadata.schema.names.index("logit")
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(place).statistics
        yield statistics.min if statistics is not None and statistics.has_min_max else -np.inf


def _take(table: pa.Table, shard: str, schema: pa.Schema, rows: NDArray[np.intp]) -> pa.Table:
    found = table.take(pa.array(rows))
    return pa.table([pa.repeat(shard, len(rows)), *found.columns], schema=schema)


def first(table: pa.Table, size: int) -> pa.Table:
    """The `size` lowest rows by (logit, shard, key)."""
    names = (table[name].to_numpy() for name in ("shard", "key"))
    return table.take(pa.array(top_b(Scored(table["logit"].to_numpy(), *names), size)))
