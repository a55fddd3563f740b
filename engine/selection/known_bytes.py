"""The images that are known: nobody pays for one of them again, under whatever name it comes."""

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.packed_positions import PACKED_SCHEMA, as_packed, as_texts
from engine.tables.digests import packed
from engine.tables.item_keys import ItemIndex, ItemKeys


class KnownImages:
    """Images by their bytes: under another key or in another shard it is the same one, whether or not it still is where
    it was. Of ten million they take half a gigabyte, whatever the size of the pool."""

    def __init__(self, *tables: pa.Table) -> None:
        """Of tables of PACKED_SCHEMA; rows without a hash are left out."""
        table = pa.concat_tables([PACKED_SCHEMA.empty_table(), *tables])
        is_known = table["content_hash"].is_valid()
        self.table = table if pc.all(is_known).as_py() else table.filter(is_known)

    def __len__(self) -> int:
        return len(self.table)

    def like(self, hashes: pa.ChunkedArray) -> pa.Table:
        """Those with one of these hashes, hex texts, as they were then: PLACES_SCHEMA, in the order given."""
        is_like = pc.is_in(self.table["content_hash"], value_set=packed(hashes))
        return as_texts(self.table.filter(is_like))


def known_images(labelled: pa.Table, picked: pa.Table, *others: pa.Table) -> KnownImages:
    """What is labelled, and what was picked before and is not labelled with the same bytes, PACKED_SCHEMA; and others,
    PACKED_SCHEMA or POSITIONS_SCHEMA, without those that are labelled with the same bytes."""
    found = [labelled, picked]
    if some := [as_packed(table) for table in others if len(table)]:
        index = ItemIndex(ItemKeys.of(labelled))
        for table in some:
            row_N = index.rows_of(ItemKeys.of(table))
            same = pc.equal(table["content_hash"], labelled["content_hash"].take(pa.array(row_N, mask=row_N < 0)))
            found.append(table.filter(pc.invert(pc.fill_null(same, fill_value=False))))
    return KnownImages(*found)
