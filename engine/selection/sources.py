"""The committed scores files as a selection reads them, with the items that cannot be picked and those drawn."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.decisions import never_picked
from engine.campaign.labels import read_labels
from engine.campaign.origins import origins_of
from engine.campaign.positions import PLACES_SCHEMA, positions_with
from engine.storage.location import Location
from engine.tables.by_shard import places_of_texts
from engine.tables.item_keys import items_of, rows_of_items
from engine.tables.scores import ShardRecord
from engine.tables.selections import ORIGIN_UNCERTAINTY

_NONE = np.empty(0, np.int64)


class Source(NamedTuple):
    """A committed scores file: its record, the keys that cannot be picked, those of them that have a label, those of
    these that were picked for uncertainty, and draws; the keys that select.exclude keeps out, of which some may be
    taken too; and whether select.where keeps out all of its items: see `engine.selection.kept_out`.

    `draw_at` are the places of drawn rows among the rows of the file that can be picked, ascending; `draw_number` are
    the numbers of these draws.
    """

    record: ShardRecord
    taken: pa.Array
    labelled: pa.Array
    uncertain: pa.Array = pa.array([], pa.string())
    draw_at: NDArray[np.int64] = _NONE
    draw_number: NDArray[np.int64] = _NONE
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


class Draws(NamedTuple):
    """N random items in the order of drawing: the number of the source (N,) int64, and the place among its items that
    can be picked (N,) int64."""

    source_N: NDArray[np.int64]
    at_N: NDArray[np.int64]


def sources_of(home: Location, records: list[ShardRecord], picked_before: pa.Table) -> list[Source]:
    """A source for each record, sorted by shard. Items that are labelled, were picked before or are never to be picked
    are taken."""
    labels = read_labels(home)
    is_uncertain = pc.equal(origins_of(home, labels), ORIGIN_UNCERTAINTY)
    items = items_of(labels, picked_before, rows_of_items(never_picked(home)))
    found, none = (
        [_by_shard(table) for table in (items, labels, labels.filter(is_uncertain))],
        pa.array([], pa.string()),
    )
    return [Source(record, *(keys.get(record.shard, none) for keys in found)) for record in sorted(records)]


def known_images(home: Location, picked_before: pa.Table) -> pa.Table:
    """Everything labelled or picked before whose bytes are known: PLACES_SCHEMA, as it was then.

    An image is its bytes: under another key or in another shard it is the same one, whether or not it still is where it
    was. Memory depends on what is labelled and picked, and not on the pool.
    """
    labelled = positions_with(home, read_labels(home))
    known = pa.concat_tables([labelled, picked_before.select(PLACES_SCHEMA.names).cast(PLACES_SCHEMA)])
    return known.filter(known["content_hash"].is_valid())


def without(sources: Sequence[Source], picks: pa.Table) -> list[Source]:
    """The sources, where these items are taken too."""
    picked = _by_shard(picks)
    none = pa.array([], pa.string())
    return [s._replace(taken=pa.concat_arrays([s.taken, picked.get(s.record.shard, none)])) for s in sources]


def _by_shard(table: pa.Table) -> dict[str, pa.Array]:
    """The keys of a table with shard and key, by shard."""
    shards, place_N = places_of_texts(table["shard"])
    order = np.argsort(place_N, kind="stable")
    ends = np.searchsorted(place_N[order], np.arange(len(shards)), side="right").tolist()
    keys, begins = table["key"].take(pa.array(order)).combine_chunks(), [0, *ends]
    parts = zip(shards.to_pylist(), begins, ends, strict=False)
    # A copy: with a slice all keys would be sent to who works on one file.
    none = pa.array([], pa.string())
    return {shard: pa.concat_arrays([keys[begin:end], none]) for shard, begin, end in parts}


def with_draws(sources: Sequence[Source], draws: Sequence[Draws]) -> list[Source]:
    """The sources with all these draws, which are numbered in order."""
    source_N, at_N = map(np.concatenate, zip(*draws, strict=True))
    order = np.lexsort((at_N, source_N))
    ends = np.searchsorted(source_N[order], np.arange(len(sources) + 1))
    found = []
    for number, source in enumerate(sources):
        here = order[ends[number] : ends[number + 1]]
        found.append(source._replace(draw_at=at_N[here], draw_number=here.astype(np.int64)))
    return found
