"""What was picked before a selection, in memory that a driver has: of ten million images half a gigabyte."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.freshness import digest_of_names
from engine.campaign.handed_out import picked_tables
from engine.campaign.packed_positions import PACKED_SCHEMA, PLACES_SCHEMA, as_packed
from engine.cluster.allocation import give_back_freed_memory
from engine.pool.manifest import read_shards
from engine.storage.location import Location
from engine.tables.item_keys import ItemKeys, first_rows


class PickedBefore(NamedTuple):
    """The images, PACKED_SCHEMA, each once, and the digest of their item_ids: see `digest_of_names`."""

    rows: pa.Table
    digest: str


def picked_before(home: Location, before: int) -> PickedBefore:
    """Everything picked in the rounds before: see `engine.campaign.handed_out.picked_items`."""
    names, ids, found = read_shards(home).names.combine_chunks(), [pa.array([], pa.string())], [_EMPTY]
    for table in picked_tables(home, before):
        ids += table["item_id"].chunks
        # One dictionary for all files: a name of a shard is as long as all else that is kept of an image.
        codes = pc.index_in(table["shard"], value_set=names).combine_chunks()
        known = pa.DictionaryArray.from_arrays(codes, names)
        shard = table["shard"].dictionary_encode() if codes.null_count else known
        found.append(as_packed(table.select(PLACES_SCHEMA.names).set_column(0, PLACES_SCHEMA.field("shard"), shard)))
    rows, item_ids = pa.concat_tables(found), pa.chunked_array(ids)
    # The texts lay between what is kept.
    give_back_freed_memory()
    first_N = first_rows(ItemKeys.of(rows))
    is_first = first_N == np.arange(len(first_N))
    if not is_first.all():
        rows, item_ids = rows.filter(pa.array(is_first)), item_ids.filter(pa.array(is_first))
    return PickedBefore(rows, digest_of_names(item_ids))


_EMPTY = PACKED_SCHEMA.empty_table()
