"""What a selection finds before it reads a score: what is labelled, what was picked before, and what other campaigns
have. None of it can be picked, nor can an image with the same bytes."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import Campaign
from engine.campaign.freshness import selection_inputs
from engine.campaign.labels import read_labels
from engine.campaign.origins import origins_of
from engine.campaign.packed_positions import PACKED_SCHEMA, as_packed
from engine.campaign.positions import packed_positions
from engine.campaign.stages import Log
from engine.cluster.allocation import give_back_freed_memory
from engine.selection.elsewhere import taken_elsewhere
from engine.selection.known_bytes import KnownImages, known_images
from engine.selection.picked_before import picked_before
from engine.selection.sources import Sources, sources_of
from engine.tables.selections import ORIGIN_UNCERTAINTY


class Unpickable(NamedTuple):
    """The inputs of the selection, SHA-256 by name, with those that say what others have in `others`; counts for the
    manifest; the files of the scores with the keys that are taken; and where it all is, PACKED_SCHEMA: what is
    labelled, what was picked before and is not labelled with the same bytes, and what other campaigns have."""

    inputs: dict[str, str]
    others: dict[str, str]
    counts: dict[str, int]
    sources: Sources
    labelled: pa.Table
    picked: pa.Table
    elsewhere: pa.Table

    def known(self, excluded: pa.Table) -> KnownImages:
        """All of it by its bytes, and what is excluded. A copy of that, under another name, is no more wanted than the
        image itself."""
        return known_images(self.labelled, self.picked, self.elsewhere, excluded)


def find_unpickable(campaign: Campaign, records: pa.Table, before: int, log: Log) -> Unpickable:
    """Of the rounds before this one, for records, RECORDS_SCHEMA sorted by shard.

    Raises InputError if a record of what was picked is damaged, or as `engine.selection.elsewhere.taken_elsewhere`.
    """
    # First, so that what is written meanwhile is found to differ at the end.
    inputs = selection_inputs(campaign, "")
    labels = read_labels(campaign.home, ["shard", "key", "label", "round", "origin"])
    is_uncertain = pc.equal(origins_of(campaign.home, labels), ORIGIN_UNCERTAINTY)
    labels = labels.select(["shard", "key"])
    uncertain, labelled = labels.filter(is_uncertain), packed_positions(campaign.home, labels)
    picked = picked_before(campaign.home, before, labelled)
    others = taken_elsewhere(campaign, records, log)
    elsewhere = as_packed(others.rows.select(PACKED_SCHEMA.names))
    taken = pa.concat_tables([picked.rows, elsewhere])
    sources = sources_of(campaign.home, records, labels, uncertain, taken)
    give_back_freed_memory()
    counts = {**others.counts, "picked_before": picked.num_images}
    inputs["picked_before"] = picked.digest
    return Unpickable(inputs, others.inputs, counts, sources, labelled, picked.rows, elsewhere)
