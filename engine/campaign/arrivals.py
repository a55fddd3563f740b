"""How many answers came of each image.

Shape suffixes: U images, R rows of batches, V votes, B batches.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.handed_out import SentBatch
from engine.campaign.outcomes import Counts, Outcomes
from engine.campaign.votes import codes_of, ingest_numbers


class _Before(NamedTuple):
    """Of each vote (V,): how often its image had been sent when it came, how many answers had been asked for, and how
    many of its own vendor."""

    sendings_V: Counts
    asked_V: Counts
    own_V: Counts


def came_of(outcomes: Outcomes, batches: list[SentBatch], batch_R: Counts, item_R: Counts, asked_R: Counts) -> Counts:
    """How many answers came of each image (U,), to questions of any kind.

    A person counts once for each time that the image was sent: a task that was given to somebody twice by mistake asks
    nobody more. A vendor's final answer is all that its vendor was asked for before it came; where that vendor never
    was asked, all that anybody was.
    """
    votes = pa.concat_tables([outcomes.votes.select(outcomes.repeats.column_names), outcomes.repeats])
    item_V = np.concatenate([outcomes.item_V, outcomes.repeat_item])
    before = _before(votes, item_V, batches, batch_R, item_R, asked_R)
    person_V, vendor_V = codes_of(votes["annotator"]), codes_of(votes["vendor"])
    found: Counts = outcomes.others_U.copy()
    is_final_V = person_V < 0
    stands_for_V = np.where(before.own_V > 0, before.own_V, np.maximum(before.asked_V, 1))
    np.add.at(found, item_V[is_final_V], stands_for_V[is_final_V])
    columns = np.stack([item_V, person_V, vendor_V, before.sendings_V], axis=1)[~is_final_V]
    np.add.at(found, np.unique(columns, axis=0)[:, 0], 1)
    return found


def _before(
    votes: pa.Table, item_V: Counts, batches: list[SentBatch], batch_R: Counts, item_R: Counts, asked_R: Counts
) -> _Before:
    number_V = ingest_numbers(votes)
    vendors = pa.array([batch.vendor for batch in batches], pa.string())
    vendor_B = pc.index_in(vendors, value_set=vendors.unique()).to_numpy()
    vendor_V = pc.fill_null(pc.index_in(votes["vendor"], value_set=vendors.unique()), -1).to_numpy()
    seen_B = np.array([batch.manifest["sending"].get("ingests", 0) for batch in batches], np.int64)
    order: NDArray[np.int64] = np.argsort(item_R, kind="stable")
    first_V, end_V = (np.searchsorted(item_R[order], item_V, side) for side in ("left", "right"))
    found = _Before(*np.zeros((3, len(item_V)), np.int64))
    for step in range(int((end_V - first_V).max(initial=0))):
        has_V = np.flatnonzero(first_V + step < end_V)
        row_V = order[first_V[has_V] + step]
        batch_V = batch_R[row_V]
        is_before_V = seen_B[batch_V] < number_V[has_V]
        found.sendings_V[has_V] += is_before_V
        found.asked_V[has_V] += asked_R[row_V] * is_before_V
        found.own_V[has_V] += asked_R[row_V] * (is_before_V & (vendor_B[batch_V] == vendor_V[has_V]))
    return found
