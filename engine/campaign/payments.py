"""How many answers came of each image, and which batch pays for each of them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.handed_out import SentBatch
from engine.campaign.outcomes import Counts
from engine.campaign.votes import codes_of


class _Sendings:
    """P pairs: every answer (V,) with each row (R,) that its image was sent with, in the order of sending."""

    def __init__(self, answers: pa.Table, batches: list[SentBatch], batch_R: Counts, item_R: Counts) -> None:
        self.answer_P, self.row_P = _pairs(answers["item"].to_numpy(), item_R)
        vendors = pa.array([batch.vendor for batch in batches], pa.string())
        vendor_R = pc.index_in(vendors, value_set=vendors.unique()).to_numpy()[batch_R]
        vendor_V = pc.fill_null(pc.index_in(answers["vendor"], value_set=vendors.unique()), -1).to_numpy()
        seen_B = np.array([batch.manifest["sending"].get("ingests", 0) for batch in batches], np.int64)
        self._seen_P = seen_B[batch_R[self.row_P]]
        self._is_own_P = vendor_R[self.row_P] == vendor_V[self.answer_P]

    def before(self, number_V: Counts) -> NDArray[np.bool_]:
        """Which pairs (P,) were sent before these ingests: to the answer's own vendor, or to any where its image was
        not sent to that one."""
        is_before_P = self._seen_P < number_V[self.answer_P]
        has_own_V = np.zeros(len(number_V), bool)
        has_own_V[self.answer_P[is_before_P & self._is_own_P]] = True
        found: NDArray[np.bool_] = is_before_P & (self._is_own_P | ~has_own_V[self.answer_P])
        return found

    def times(self, number_V: Counts) -> Counts:
        """How often the image of each answer (V,) had been sent before these ingests."""
        found: Counts = np.bincount(self.answer_P, self._seen_P < number_V[self.answer_P], len(number_V))
        return found.astype(np.int64)

    def newest(self, is_some_P: NDArray[np.bool_], size: int) -> Counts:
        """The newest row (V,) of these pairs for each answer, -1 for none."""
        row_V = np.full(size, -1)
        # Of several the last is kept.
        row_V[self.answer_P[is_some_P]] = self.row_P[is_some_P]
        return row_V


def payments(
    answers: pa.Table, size: int, batches: list[SentBatch], batch_R: Counts, item_R: Counts, asked_R: Counts
) -> tuple[Counts, Counts]:
    """How many answers came of each image (U,), and how many each row (R,) pays for: at most those that it asked for.

    The newest row that the image was sent with before the answer came pays for it: of its vendor's, or of all where it
    was not sent to that one. A vendor's final answer, and a newer version of it, is all that the row asked for; the
    image has all answers then that such rows asked for. Of several answers of one person only one came for each time
    that the image was sent: a task that was given to somebody twice by mistake asks nobody more.

    Args:
        answers: see `engine.campaign.outcomes.Outcomes`.
        size: U.
        batch_R, item_R, asked_R: of each row, in the order of sending, its batch and image, and for how many answers it
            asked.
    """
    sendings, item_V = _Sendings(answers, batches, batch_R, item_R), answers["item"].to_numpy()
    person_V, is_final_V = codes_of(answers["annotator"]), answers["annotator"].is_null().to_numpy()
    first_V, newest_V = answers["first"].to_numpy(), answers["newest"].to_numpy()
    paid_R, stands_for_V = np.zeros(len(item_R), np.int64), np.zeros(len(item_V), np.int64)
    for number_V, counts_V in (first_V, np.ones(len(item_V), bool)), (newest_V, is_final_V):
        is_before_P = sendings.before(number_V)
        row_V = sendings.newest(is_before_P, len(item_V))
        payer_V = np.flatnonzero((row_V >= 0) & counts_V)
        row = row_V[payer_V]
        np.add.at(paid_R, row, np.where(is_final_V[payer_V], asked_R[row], 1))
    np.add.at(stands_for_V, sendings.answer_P[is_before_P], asked_R[sendings.row_P[is_before_P]])
    came_U = np.zeros(size, np.int64)
    np.add.at(came_U, item_V[is_final_V], np.maximum(stands_for_V, 1)[is_final_V])
    times_V = sendings.times(first_V)
    of_people = np.stack([item_V, person_V, codes_of(answers["vendor"]), times_V], axis=1)[~is_final_V]
    np.add.at(came_U, np.unique(of_people, axis=0)[:, 0], 1)
    return came_U, np.minimum(paid_R, asked_R)


def _pairs(item_V: Counts, item_R: Counts) -> tuple[Counts, Counts]:
    """Every answer with each row of its image: their places (P,) among answers and rows."""
    order = np.argsort(item_R, kind="stable")
    first_V, end_V = (np.searchsorted(item_R[order], item_V, side) for side in ("left", "right"))
    length_V = end_V - first_V
    answer_P = np.repeat(np.arange(len(item_V)), length_V)
    place_P = np.arange(len(answer_P)) - np.repeat(np.cumsum(length_V) - length_V, length_V)
    return answer_P, order[first_V[answer_P] + place_P]
