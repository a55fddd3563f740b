"""Which taken images are like what a batch may be made of: block by block, so that memory depends on these items and on
a block, and not on how much is labelled."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.selection.duplicates import Mode, first_like, kinds_of
from engine.selection.parts import Share, each, map_reduce
from engine.selection.reduction import RowQuery, num_threads, parts_of, take_rows
from engine.selection.sources import Source, Sources
from engine.storage.location import Location
from engine.tables.score_reader import open_scores

COMPARED = ["content_hash", "perceptual_hash", "latent"]
BLOCK_ROWS = 16_384
"""Taken rows that are compared at a time; as many as there are items, where these are more."""


class Comparison(NamedTuple):
    """Items with the columns COMPARED, and what makes a duplicate: as for `find_duplicates`."""

    items: pa.Table
    mode: Mode
    cosine: float | None

    @staticmethod
    def of(tables: Iterable[pa.Table], schema: pa.Schema, mode: Mode, cosine: float | None) -> "Comparison":
        """Of the rows of tables that have these columns of the schema, and maybe others."""
        compared = pa.schema([schema.field(name) for name in COMPARED])
        return Comparison(_joined(table.select(COMPARED).cast(compared) for table in tables), mode, cosine)


def taken_like(
    folder: Location, sources: Sources, query: RowQuery, comparison: Comparison, on_progress: Share
) -> pa.Table:
    """Rows of the query's schema, sorted by (shard, key), of what is taken: for each of the items and each kind of
    duplicates the first one that it is like is among them. By these rows `find_duplicates` finds what it finds by all.

    Must be called within `room_for` the parts of the sources. Memory depends on the items and on the taken rows of one
    file. Raises InputError if a scores file is missing or damaged.
    """
    needed = sources.where(sources.num_taken > 0)
    if comparison.mode == "off" or not len(comparison.items) or not needed:
        return query.schema.empty_table()
    find = partial(_find_part, folder, query, comparison)
    found: pa.Table = map_reduce(find, _joined, parts_of(needed), on_progress)
    return found


def _find_part(folder: Location, query: RowQuery, comparison: Comparison, part: Sequence[Source]) -> pa.Table:
    items, mode, cosine = comparison
    left = {kind: np.arange(len(items)) for kind in kinds_of(mode, cosine)}
    found = [query.schema.empty_table()]
    taken = each(partial(_taken_in, folder, query), part, num_threads(folder))
    for block in _blocks(taken, max(BLOCK_ROWS, len(items))):
        is_first_T = np.zeros(len(block), np.bool_)
        for kind, item_L in left.items():
            first_L = first_like(kind, block, items.take(pa.array(item_L)), cosine)
            is_first_T[first_L[first_L >= 0]] = True
            left[kind] = item_L[first_L < 0]
        found.append(block.filter(pa.array(is_first_T)))
    return _joined(found)


def _joined(tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).combine_chunks()


def _blocks(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The rows of tables in blocks of at most this size."""
    held, num_held = list[pa.Table](), 0
    for table in tables:
        for begin in range(0, len(table), size):
            piece = table.slice(begin, size)
            if num_held + len(piece) > size:
                yield _joined(held)
                held, num_held = [], 0
            held.append(piece)
            num_held += len(piece)
    if held:
        yield _joined(held)


def _taken_in(folder: Location, query: RowQuery, source: Source) -> pa.Table:
    """The taken rows of a file, by key."""
    found = [query.schema.empty_table()]
    # Without checksums the whole file was verified in the first pass.
    with open_scores(folder, source.record, is_checked=bool(source.record.footer_sha256)) as file:
        for group in range(file.num_row_groups):
            keys = file.read_row_group(group, ["key"], use_threads=False)["key"]
            row_T = np.flatnonzero(pc.is_in(keys, value_set=source.taken).to_numpy())
            if len(row_T):
                table = file.read_row_group(group, query.sources, use_threads=False)
                found.append(take_rows(table, source.record.shard, query, row_T))
    return pa.concat_tables(found).sort_by("key")
