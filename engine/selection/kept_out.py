"""What may not be picked by select.where and select.exclude. It is kept out before anything is counted or drawn.

A selection is then that from a pool without these images: neither the gate, nor the candidates, nor the control arm
know of them. Their labels, where they have some, are labels all the same.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import Campaign
from engine.campaign.labels import POSITIONS_SCHEMA, Identity
from engine.pool.exclusions import NO_EXCLUSIONS, Exclusions, Hashes, hashes_of, is_among, read_exclusions
from engine.pool.metadata import some_meet, which_meet
from engine.selection.parts import Share, each, map_reduce
from engine.selection.reduction import num_threads, parts_of
from engine.selection.sources import Source, Sources
from engine.storage.location import Location
from engine.tables.score_reader import open_scores


class KeptOut(NamedTuple):
    """The sources to pick from, in which nothing that is kept out can be picked; the excluded images that the scores
    have, POSITIONS_SCHEMA, sorted by (shard, key); and the counts for the manifest: of those that select.exclude names,
    of its entries that match no scored image, and of all images that select.where keeps out without a look at them."""

    sources: Sources
    excluded: pa.Table
    counts: dict[str, int]

    def all_counts(self, num_out: int) -> dict[str, int]:
        """The counts for the manifest, of the options that are set; `num_out` are those that select.where kept out of
        files that were read."""
        counts = dict(self.counts)
        if "out_by_where" in counts:
            counts["out_by_where"] += num_out
        return counts


def keep_out(campaign: Campaign, sources: Sources, on_progress: Share) -> KeptOut:
    """Find what select.where and select.exclude keep out. Must be called within `room_for` the parts of the sources.

    Reads the names and hashes of images where the file of select.exclude has hashes, else only the files of the shards
    that it names; memory depends on what it matches, and not on the pool.

    Raises InputError for a file that cannot be read, ConfigError for a condition that nothing meets or that is wrong.
    """
    options = campaign.config.select
    exclusions = read_exclusions(options.exclude) if options.exclude else NO_EXCLUSIONS
    sources, excluded = _excluded(campaign.stage("scores"), sources, exclusions, on_progress)
    counts: dict[str, int] = {}
    if options.exclude:
        counts = {"excluded": len(excluded), "exclude_unmatched": _num_unmatched(exclusions, excluded)}
    if options.where:
        is_out_F = ~some_meet(campaign.home, options.where, sources.names)
        # Those whose labels or picks count are read, and counted then.
        is_unread_F = is_out_F & (sources.num_taken == 0)
        unread = sources.where(is_unread_F)
        num_named = pc.sum(pc.is_in(excluded["shard"], value_set=unread.names)).as_py() or 0
        counts["out_by_where"] = unread.num_scored - num_named
        sources = sources.with_out(is_out_F).where(~is_unread_F)
    return KeptOut(sources, excluded, counts)


def why_out(campaign: Campaign, where: str, item: Identity, excluded: pa.Table) -> str:
    """Why an item was kept out of a selection with this select.where, that found these images excluded; "" where it was
    not."""
    shard, key = item
    is_it = pc.and_(pc.equal(excluded["shard"], shard), pc.equal(excluded["key"], key))
    if pc.any(is_it).as_py():
        return "select.exclude names it, or an image with the same bytes"
    if where and not which_meet(campaign.home, where, [shard])[0]:
        return f"its shard does not meet select.where={where}"
    return ""


def _excluded(
    folder: Location, sources: Sources, exclusions: Exclusions, on_progress: Share
) -> tuple[Sources, pa.Table]:
    """The sources with the keys that are excluded, and these images."""
    none = POSITIONS_SCHEMA.empty_table()
    if not exclusions.num_rows:
        return sources, none
    sources = sources.with_columns(excluded=sources.grouped(exclusions.names))
    asked = sources
    if not len(exclusions.hash_H):
        asked = sources.where(sources.columns["excluded"].counts > 0)
    if not asked:
        return sources, none
    find = partial(_find_part, folder, exclusions.hash_H)
    found: pa.Table = map_reduce(find, _joined, parts_of(asked), on_progress)
    found = found.sort_by([("shard", "ascending"), ("key", "ascending")])
    return sources.with_columns(excluded=sources.grouped(found)), found


def _find_part(folder: Location, hash_H: Hashes, part: Sequence[Source]) -> pa.Table:
    return _joined(each(partial(_find, folder, hash_H), part, num_threads(folder)))


def _joined(tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables([POSITIONS_SCHEMA.empty_table(), *tables]).combine_chunks()


def _find(folder: Location, hash_H: Hashes, source: Source) -> pa.Table:
    """The excluded items of a file."""
    names, found = POSITIONS_SCHEMA.names[1:], [POSITIONS_SCHEMA.empty_table()]
    with open_scores(folder, source.record, is_checked=True) as file:
        for group in range(file.num_row_groups):
            seen = file.read_row_group(group, ["key", "content_hash"], use_threads=False)
            is_named = pc.is_in(seen["key"], value_set=source.excluded).to_numpy()
            rows = np.flatnonzero(is_named | is_among(hashes_of(seen["content_hash"]), hash_H))
            if len(rows):
                table = file.read_row_group(group, names, use_threads=False).take(pa.array(rows))
                columns = [pa.repeat(source.record.shard, len(rows)), *(table[name] for name in names)]
                found.append(pa.table(columns, names=POSITIONS_SCHEMA.names).cast(POSITIONS_SCHEMA))
    return pa.concat_tables(found)


def _num_unmatched(exclusions: Exclusions, excluded: pa.Table) -> int:
    """How many different names and hashes of the file match no scored image."""
    on = ["shard", "key"]
    named = len(exclusions.names.join(excluded.select(on), on, join_type="left semi"))
    hashed = int(is_among(exclusions.hash_H, np.unique(hashes_of(excluded["content_hash"]))).sum())
    return len(exclusions.names) - named + len(exclusions.hash_H) - hashed
