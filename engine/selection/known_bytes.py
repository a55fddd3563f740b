"""The images that are known: nobody pays for one of them again, under whatever name it comes."""

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.labels import read_labels
from engine.campaign.packed_positions import PACKED_SCHEMA, as_packed, as_texts
from engine.campaign.positions import packed_positions
from engine.storage.location import Location
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


def known_images(home: Location, *others: pa.Table) -> KnownImages:
    """Everything that is labelled, and others, such as what was picked before, PACKED_SCHEMA or POSITIONS_SCHEMA."""
    labelled = packed_positions(home, read_labels(home, ["shard", "key", "label", "round"]))
    found, index = [labelled], ItemIndex(ItemKeys.of(labelled))
    for table in others:
        picked = as_packed(table)
        # What was picked is labelled by now, for the most part.
        row_N = index.rows_of(ItemKeys.of(picked))
        same = pc.equal(picked["content_hash"], labelled["content_hash"].take(pa.array(row_N, mask=row_N < 0)))
        found.append(picked.filter(pc.invert(pc.fill_null(same, fill_value=False))))
    return KnownImages(*found)
