"""What was picked before a selection and is not known by its label: of ten million picks, most are labelled by now."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.freshness import packed_picks
from engine.campaign.handed_out import picked_tables
from engine.campaign.packed_positions import PACKED_SCHEMA
from engine.cluster.allocation import give_back_freed_memory
from engine.pool.manifest import read_shards
from engine.storage.location import Location
from engine.tables.columns import rows_where
from engine.tables.digests import digest_of
from engine.tables.item_keys import ItemIndex, ItemKeys, are_first


class PickedBefore(NamedTuple):
    """The images that are not labelled with the same bytes, PACKED_SCHEMA, each once; how many images there are with
    those that are; and the digest of all their item_ids: see `engine.campaign.freshness.digest_of_picks`."""

    rows: pa.Table
    num_images: int
    digest: str


def picked_before(home: Location, before: int, labelled: pa.Table) -> PickedBefore:
    """Everything picked in the rounds before, see `engine.campaign.handed_out.picked_items`, beside what is labelled,
    PACKED_SCHEMA.

    Raises InputError if a record of it is damaged.
    """
    picks = _Picks(home, labelled)
    # No file is held while the next one is read.
    for _ in map(picks.add, picked_tables(home, before)):
        give_back_freed_memory()
    return picks.result()


class _Picks:
    """What was picked, file by file."""

    def __init__(self, home: Location, labelled: pa.Table) -> None:
        self._home, self._names = home, read_shards(home).names.combine_chunks()
        self._index, self._hashes = ItemIndex(ItemKeys.of(labelled)), labelled["content_hash"]
        self._is_picked_L, self._num_other = np.zeros(len(labelled), bool), 0
        self._ids, self._parts = list[pa.Array](), [PACKED_SCHEMA.empty_table()]

    def add(self, table: pa.Table) -> None:
        """Add the next file."""
        self._ids.append(packed_picks(self._home, table["item_id"]))
        picked = self._packed(table)
        keys = ItemKeys.of(picked)
        # Of an image that was picked twice the first time counts.
        row_N, is_new_N = self._index.rows_of(keys), are_first(keys)
        is_known_N = row_N >= 0
        is_new_N[is_known_N] &= ~self._is_picked_L[row_N[is_known_N]]
        self._is_picked_L[row_N[is_known_N]] = True
        is_same_N = pc.equal(picked["content_hash"], self._hashes.take(pa.array(row_N, mask=~is_known_N)))
        is_new_N &= ~pc.fill_null(is_same_N, fill_value=False).to_numpy()
        self._num_other += int(np.count_nonzero(is_new_N & is_known_N))
        self._parts.append(rows_where(picked, is_new_N))

    def _packed(self, table: pa.Table) -> pa.Table:
        # One dictionary for all: a name of a shard is as long as all else that is kept of an image.
        code_N = pc.index_in(table["shard"], value_set=self._names).combine_chunks()
        if code_N.null_count:
            self._names = pa.concat_arrays([self._names, pc.unique(table["shard"].filter(pc.is_null(code_N)))])
            code_N = pc.index_in(table["shard"], value_set=self._names).combine_chunks()
        shard, hashes = (
            pa.DictionaryArray.from_arrays(code_N, self._names),
            packed_picks(self._home, table["content_hash"]),
        )
        return pa.table([shard, table["key"], table["offset"], table["size_bytes"], hashes], schema=PACKED_SCHEMA)

    def result(self) -> PickedBefore:
        """All that was added. No more can be."""
        del self._index
        digest, rows = digest_of(self._ids), pa.concat_tables(self._parts)
        self._ids.clear()
        rows = rows_where(rows, are_first(ItemKeys.of(rows)))
        give_back_freed_memory()
        return PickedBefore(rows, int(np.count_nonzero(self._is_picked_L)) + len(rows) - self._num_other, digest)
