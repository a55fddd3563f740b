"""What was picked before a selection, in memory that a driver has: of ten million images half a gigabyte."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.freshness import digest_of_names
from engine.campaign.handed_out import picked_tables
from engine.campaign.packed_positions import PACKED_SCHEMA
from engine.cluster.allocation import give_back_freed_memory
from engine.errors import InputError
from engine.pool.manifest import read_shards
from engine.storage.location import Location
from engine.tables.columns import rows_where
from engine.tables.digests import packed
from engine.tables.item_keys import ItemKeys, are_first


class PickedBefore(NamedTuple):
    """The images, PACKED_SCHEMA, each once, and the digest of their item_ids: see `digest_of_names`."""

    rows: pa.Table
    digest: str


def picked_before(home: Location, before: int) -> PickedBefore:
    """Everything picked in the rounds before: see `engine.campaign.handed_out.picked_items`.

    Raises InputError if a record of it is damaged.
    """
    names, ids, codes, rest = read_shards(home).names.combine_chunks(), [_TEXTS], [_CODES], [_REST.empty_table()]
    for table in picked_tables(home, before):
        ids += table["item_id"].chunks
        # One dictionary for all: a name of a shard is as long as all else that is kept of an image.
        code_N = pc.index_in(table["shard"], value_set=names).combine_chunks()
        if code_N.null_count:
            names = pa.concat_arrays([names, pc.unique(table["shard"].filter(pc.is_null(code_N)))])
            code_N = pc.index_in(table["shard"], value_set=names).combine_chunks()
        codes.append(code_N)
        columns = [*(table[name] for name in _REST.names[:-1]), _packed(home, table["content_hash"])]
        rest.append(pa.table(columns, schema=_REST))
    item_ids, shard = pa.chunked_array(ids), pa.DictionaryArray.from_arrays(pa.concat_arrays(codes), names)
    rows = pa.concat_tables(rest).add_column(0, PACKED_SCHEMA.field("shard"), pa.chunked_array([shard]))
    # The texts lay between what is kept.
    give_back_freed_memory()
    # An item may have two names where a person wrote one.
    kept = rows_where(pa.table({"": item_ids}), are_first(ItemKeys.of_texts(item_ids)))
    return PickedBefore(rows_where(rows, are_first(ItemKeys.of(rows))), digest_of_names(kept[""]))


def _packed(home: Location, hashes: pa.ChunkedArray) -> pa.Array:
    try:
        return packed(hashes)
    except ValueError as error:
        why = f"a record of what was picked has a content_hash that is none: {error}; restore it from a copy"
        raise InputError(f"{home}/rounds: {why}") from error


_TEXTS, _CODES = pa.array([], pa.string()), pa.array([], pa.int32())
_REST = pa.schema([field for field in PACKED_SCHEMA if field.name != "shard"])
