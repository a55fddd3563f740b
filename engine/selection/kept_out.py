"""What may not be picked by select.where and select.exclude. It is kept out before anything is counted or drawn.

A selection is then that from a pool without these images: neither the gate, nor the candidates, nor the control arm
know of them. Their labels, where they have some, are labels all the same.
"""

from collections.abc import Iterable
from functools import partial
from itertools import compress
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import Campaign
from engine.campaign.labels import POSITIONS_SCHEMA, Identity
from engine.config.texts import plural
from engine.pool.exclusions import NO_EXCLUSIONS, Exclusions, Hashes, hashes_of, is_among, read_exclusions
from engine.pool.metadata import some_meet, which_meet
from engine.selection.parts import Share, each, map_reduce
from engine.selection.reduction import num_threads, parts_of
from engine.selection.sources import Source
from engine.storage.location import Location
from engine.tables.score_reader import open_scores


class KeptOut(NamedTuple):
    """The sources to pick from, in which nothing that is kept out can be picked; the excluded images that the scores
    have, POSITIONS_SCHEMA, sorted by (shard, key); and the counts for the manifest: of those that select.exclude names,
    of its entries that match no scored image, and of all images that select.where keeps out without a look at them."""

    sources: list[Source]
    excluded: pa.Table
    counts: dict[str, int]

    def all_counts(self, num_out: int) -> dict[str, int]:
        """The counts for the manifest, of the options that are set; `num_out` are those that select.where kept out of
        files that were read."""
        counts = dict(self.counts)
        if "out_by_where" in counts:
            counts["out_by_where"] += num_out
        return counts


def keep_out(campaign: Campaign, sources: list[Source], on_progress: Share) -> KeptOut:
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
        names = [source.record.shard for source in sources]
        is_met = some_meet(campaign.home, options.where, names).tolist()
        open_to_picks = set(compress(names, is_met))
        held = pc.value_counts(excluded["shard"]).to_pylist()
        named = {row["values"]: row["counts"] for row in held}
        out = [source.record for source in sources if source.record.shard not in open_to_picks]
        # Those whose labels or picks count are read, and counted then.
        unread = {record.shard for record in out} - {source.record.shard for source in sources if len(source.taken)}
        counts["out_by_where"] = sum(r.scored - named.get(r.shard, 0) for r in out if r.shard in unread)
        read = (source for source in sources if source.record.shard not in unread)
        sources = [source._replace(is_out=source.record.shard not in open_to_picks) for source in read]
    return KeptOut(sources, excluded, counts)


def in_lines(counts: dict[str, int]) -> list[str]:
    """What was kept out, for a person, by the counts of a selection's manifest."""
    lines = []
    if "out_by_where" in counts:
        lines.append(f"select.where keeps out {plural(counts['out_by_where'], 'image')}")
    if "excluded" in counts:
        missed = counts["exclude_unmatched"]
        entries = "entries matches" if missed == 1 else "entries match"
        rest = f"; {missed:,} of its {entries} no scored image" if missed else ""
        lines.append(f"select.exclude keeps out {plural(counts['excluded'], 'image')}{rest}")
    return lines


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
    folder: Location, sources: list[Source], exclusions: Exclusions, on_progress: Share
) -> tuple[list[Source], pa.Table]:
    """The sources with the keys that are excluded, and these images."""
    none = POSITIONS_SCHEMA.empty_table()
    if not exclusions.num_rows:
        return sources, none
    sources = _with_keys(sources, exclusions.names)
    asked = [source for source in sources if len(exclusions.hash_H) or len(source.excluded)]
    if not asked:
        return sources, none
    find = partial(_find_part, folder, exclusions.hash_H)
    found: pa.Table = map_reduce(find, _joined, parts_of(asked), on_progress)
    found = found.sort_by([("shard", "ascending"), ("key", "ascending")])
    return _with_keys(sources, found.select(["shard", "key"])), found


def _with_keys(sources: list[Source], names: pa.Table) -> list[Source]:
    """The sources with these excluded keys. Only numbers are kept for each shard beside them."""
    codes = names["shard"].combine_chunks().dictionary_encode()
    order = pc.array_sort_indices(codes.indices)
    keys = names["key"].combine_chunks().take(order)
    ends = np.bincount(codes.indices.to_numpy(), minlength=len(codes.dictionary)).cumsum().tolist()
    begins = dict(zip(codes.dictionary.to_pylist(), zip([0, *ends], ends, strict=False), strict=True))
    places = (begins.get(source.record.shard, (0, 0)) for source in sources)
    return [
        source._replace(excluded=keys.slice(begin, end - begin))
        for source, (begin, end) in zip(sources, places, strict=True)
    ]


def _find_part(folder: Location, hash_H: Hashes, part: list[Source]) -> pa.Table:
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
