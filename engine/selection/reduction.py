"""Any number of committed scores to the candidates: exactly the M lowest by a ranking, in bounded memory.

Two passes read the files, in parts that Ray spreads over the cluster. The first pass checks every file and reads only
the column that ranks: it finds the M-th lowest place and a histogram of all scores. The second pass collects the rows
up to that place, from the row groups whose statistics reach as low. Both keep the lowest and merge in any tree, by the
merge law of `vaal.ranking.top_b`. The result is the same for any parts, files and row groups, and memory depends on M
and on the size of a row group.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.selection.collecting import Collected, Collector, Wish, merged, weighed_by_labels
from engine.selection.lowest import Lowest, LowestPlaces
from engine.selection.order import Ranking
from engine.selection.parts import Share, deal, each, map_reduce
from engine.selection.sources import Source, Sources
from engine.storage.location import Location
from engine.tables.histogram import Histogram
from engine.tables.score_reader import damaged, open_scores
from vaal.ranking import Scored, top_b

GROUPS_AT_ONCE = 16
"""Row groups whose scores a thread holds in the first pass."""
DRAW_FIELD = pa.field("draw", pa.int64(), nullable=False)


class FirstPass(NamedTuple):
    """F files in order: how many items can be picked (F,) int64, how many are taken (F,) int64, and the lowest place of
    the former in the ranking (F,), its highest where there are none; the lowest places of all of these (K,), in no
    order; the histogram of all scores but those that are kept out; what the completion needs; the ranking; and how many
    items select.where kept out."""

    eligible_F: NDArray[np.int64]
    taken_F: NDArray[np.int64]
    lowest_F: NDArray[Any]
    low_K: NDArray[Any]
    histogram: Histogram
    found: Collected
    ranking: Ranking
    num_out: int = 0

    @property
    def num_eligible(self) -> int:
        return int(self.eligible_F.sum())

    def bound(self, size: int) -> Any:
        """The `size`-th lowest place; the highest when fewer are known."""
        if size == 0:
            return self.ranking.lowest
        return np.partition(self.low_K, size - 1)[size - 1] if size <= len(self.low_K) else self.ranking.highest


class RowQuery(NamedTuple):
    """The `size` lowest rows up to a place `bound` of the ranking.

    `schema` has shard first, then columns of the files, key among them, and `score` for the column that ranks; where
    rows are asked for, also the ranking's second column."""

    bound: Any
    size: int
    schema: pa.Schema
    ranking: Ranking

    @property
    def sources(self) -> list[str]:
        """The column of the files behind each one of the schema, without shard."""
        return [self.ranking.column if name == "score" else name for name in self.schema.names[1:]]


class SecondPass(NamedTuple):
    """Rows of scores files: the lowest, sorted by the ranking; the taken ones that are asked for, by (shard, key); the
    drawn ones, by their column `draw`."""

    lowest: pa.Table
    taken: pa.Table
    drawn: pa.Table


def count(folder: Location, sources: Sources, wish: Wish, on_progress: Share) -> FirstPass:
    """Check all files, count what can be picked, and find what is wished for of that.

    Raises InputError if a file is missing or is not the committed one, or a score that ranks is missing or NaN.
    """
    part, add = partial(_count_part, folder, wish), partial(_join, wish)
    found: FirstPass = map_reduce(part, add, parts_of(sources), on_progress)
    # Of all parts together: the sums of parts would not add up.
    return found if wish.has_logits else found._replace(found=weighed_by_labels(found.found, wish))


def gather(folder: Location, sources: Sources, counts: FirstPass, query: RowQuery, on_progress: Share) -> SecondPass:
    """The rows of the query, and the drawn and taken rows that the sources ask for, sorted as in `SecondPass`. `counts`
    are those of these sources."""
    num_asked_F = sources.columns["draw_at"].counts + sources.columns["taken_at"].counts
    needed = sources.where((counts.lowest_F <= query.bound) | (num_asked_F > 0))
    part = partial(_gather_part, folder, query)
    found = map_reduce(part, partial(_merge, query), parts_of(needed), on_progress)
    taken = found.taken.sort_by([("shard", "ascending"), ("key", "ascending")])
    # Who asks for no rows has not read what ranks them.
    lowest = first(found.lowest, query.size, query.ranking) if query.size else found.lowest
    return SecondPass(lowest, taken, found.drawn.sort_by("draw"))


def parts_of(sources: Sources) -> list[Sequence[Source]]:
    """The sources, divided into the parts that run at the same time."""
    return deal(sources, sources.records["scored"].to_numpy())


def num_threads(folder: Location) -> int:
    """On a disk more than two would wait for one another; on an object store most of them wait for the store."""
    return 2 if folder.is_local else 16


def _lowest_rows(ranking: Ranking, pieces: list[pa.Table], size: int) -> pa.Table:
    held = pa.concat_tables(pieces)
    return first(held, size, ranking) if size < len(held) else held


def _count_part(folder: Location, wish: Wish, part: Sequence[Source]) -> FirstPass:
    lows, collector = LowestPlaces(wish.num_lowest, wish.ranking), Collector(wish)
    return _add(lows, collector, each(partial(_count_file, folder, lows, collector), part, num_threads(folder)))


def _join(wish: Wish, passes: Iterable[FirstPass]) -> FirstPass:
    return _add(LowestPlaces(wish.num_lowest, wish.ranking), Collector(wish), passes)


def _add(lows: LowestPlaces, collector: Collector, passes: Iterable[FirstPass]) -> FirstPass:
    ranking = collector.wish.ranking
    eligible, taken = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    lowest, histogram, num_out = [np.empty(0, ranking.highest.dtype)], Histogram(), 0
    lows.add(lowest[0])
    for found in passes:
        collector.add(found.found, sum(map(len, eligible)))
        eligible.append(found.eligible_F)
        taken.append(found.taken_F)
        lowest.append(found.lowest_F)
        lows.add(found.low_K)
        histogram.merge(found.histogram)
        num_out += found.num_out
    eligible_F, taken_F, lowest_F = (np.concatenate(pieces) for pieces in (eligible, taken, lowest))
    rest = histogram, collector.result(), ranking, num_out
    return FirstPass(eligible_F, taken_F, lowest_F, lows.result(), *rest)


def _count_file(folder: Location, lows: LowestPlaces, collector: Collector, source: Source) -> FirstPass:
    ranking = collector.wish.ranking
    num_eligible, num_taken, num_out, lowest, histogram = 0, 0, 0, ranking.highest, Histogram()
    pieces = [np.empty(0, lowest.dtype)]
    wanted = [*ranking.columns, *collector.wish.columns, *([] if source.is_open else ["key"])]
    columns = list(dict.fromkeys(wanted))
    found = list[Collected]()
    with open_scores(folder, source.record, is_checked=True) as file:
        for begin in range(0, file.num_row_groups, GROUPS_AT_ONCE):
            groups = list(range(begin, min(begin + GROUPS_AT_ONCE, file.num_row_groups)))
            table = file.read_row_groups(groups, columns=columns, use_threads=False)
            for name in ranking.columns:
                _require_numbers(folder, source, file, groups, table[name], name)
            score, place = table[ranking.column].to_numpy(), ranking.places(table)
            fates = source.fates(table)
            if collector.wish.columns:
                found.append(collector.look(source.record.shard, table, fates, num_eligible))
            if not source.is_open:
                histogram.add("labelled", score[fates.is_labelled_N])
                histogram.add("out", score[fates.is_taken_N & ~fates.is_labelled_N])
                score, place = score[fates.is_free], place[fates.is_free]
                num_taken += int(np.count_nonzero(fates.is_taken_N))
                num_out += int(np.count_nonzero(fates.is_out_N))
            histogram.add("eligible", score)
            num_eligible += len(place)
            lowest = place.min(initial=lowest)
            pieces.append(place[place <= lows.cut])
    lowest_F = np.array([lowest])
    whole = merged(found, collector.wish)
    own = np.array([num_eligible], np.int64), np.array([num_taken], np.int64), lowest_F, np.concatenate(pieces)
    return FirstPass(*own, histogram, whole, ranking, num_out)


def _require_numbers(
    folder: Location, source: Source, file: pq.ParquetFile, groups: list[int], column: pa.ChunkedArray, name: str
) -> None:
    # One NaN makes the minimum NaN.
    if not column.null_count and not np.isnan(column.to_numpy().min(initial=np.inf)):
        return
    table = file.read_row_groups(groups, columns=[name, "key"])
    bad = table.filter(pc.fill_null(pc.is_nan(table[name]), True)).slice(0, 1).to_pylist()[0]
    what = "missing" if bad[name] is None else "NaN"
    raise damaged(folder / source.record.file, f"the {name} of {bad['key']} is {what}")


def _gather_part(folder: Location, query: RowQuery, part: Sequence[Source]) -> SecondPass:
    return _merge(query, each(partial(_gather_file, folder, query), part, num_threads(folder)))


def _merge(query: RowQuery, gathered: Iterable[SecondPass]) -> SecondPass:
    """The lowest of all, and everything that is taken or drawn. Takes one at a time."""
    none = query.schema.empty_table()
    lowest, taken = Lowest(query.size, partial(_lowest_rows, query.ranking)), [none]
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
    found, begin, ranking = list[SecondPass](), 0, query.ranking
    wanted = list(dict.fromkeys([*query.sources, *(ranking.columns if query.size else [])]))
    # Without checksums the whole file was verified in the first pass.
    with open_scores(folder, source.record, is_checked=bool(source.record.footer_sha256)) as file:
        wanted_keys = _keys_at(file, source)
        for group, low in enumerate(_minima(file.metadata, ranking.column)):
            is_free = np.ones(file.metadata.row_group(group).num_rows, np.bool_)
            takes = np.empty(0, np.intp)
            if not source.is_open:
                keys = file.read_row_group(group, ["key"], use_threads=False)
                is_free = source.fates(keys).is_free
                takes = np.flatnonzero(pc.is_in(keys["key"], value_set=wanted_keys).to_numpy())
            end = begin + int(np.count_nonzero(is_free))
            here = slice(*np.searchsorted(source.draw_at, (begin, end)))
            places, begin = source.draw_at[here] - begin, end
            if ranking.first_of(low) > query.bound and not len(places) and not len(takes):
                continue
            table = file.read_row_group(group, wanted, use_threads=False)
            is_low = ranking.places(table) <= query.bound if query.size else np.zeros(len(is_free), np.bool_)
            lows = np.flatnonzero(is_low & is_free)
            take = partial(take_rows, table, source.record.shard, query)
            draws = take(np.flatnonzero(is_free)[places])
            draws = draws.append_column(DRAW_FIELD, pa.array(source.draw_number[here]))
            found.append(SecondPass(take(lows), take(takes), draws))
    return _merge(query, found)


def _keys_at(file: pq.ParquetFile, source: Source) -> pa.Array:
    """The keys of the taken rows of a file that are asked for."""
    if not len(source.taken_at):
        return pa.array([], pa.string())
    groups = (file.read_row_group(group, ["key"], use_threads=False)["key"] for group in range(file.num_row_groups))
    keys = pa.chunked_array([keys.filter(pc.is_in(keys, value_set=source.taken)).combine_chunks() for keys in groups])
    places = pc.sort_indices(keys).take(pa.array(source.taken_at))
    return keys.take(places).combine_chunks()


def _minima(metadata: pq.FileMetaData, column: str) -> Iterator[float]:
    """The lowest value of a column in every row group; minus infinity where the file does not say."""
    place = metadata.schema.names.index(column)
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(place).statistics
        yield statistics.min if statistics is not None and statistics.has_min_max else -np.inf


def take_rows(table: pa.Table, shard: str, query: RowQuery, rows: NDArray[np.intp]) -> pa.Table:
    """These rows of a file's table as rows of the query's schema."""
    found = table.take(pa.array(rows))
    return pa.table([pa.repeat(shard, len(rows)), *(found[name] for name in query.sources)], schema=query.schema)


def first(table: pa.Table, size: int, ranking: Ranking) -> pa.Table:
    """The `size` lowest rows of a table with the column `score` by a ranking, in its order."""
    names = (table[name].to_numpy() for name in ("shard", "key"))
    return table.take(pa.array(top_b(Scored(ranking.places(table, "score"), *names), size)))
