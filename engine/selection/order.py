"""The order in which a selection ranks items: by a column of the scores, and by a second one where that is equal."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vaal.acquisition import ACQUISITIONS, column_of
from vaal.ranking import joint_order


class Ranking(NamedTuple):
    """The `column` of the scores that ranks, lowest first, and the one that decides between equal scores: "" for none.

    Items that are still equal are in the order of (shard, key).
    """

    column: str = "logit"
    ties: str = ""

    @property
    def columns(self) -> list[str]:
        return [self.column, *([self.ties] if self.ties else [])]

    @property
    def highest(self) -> Any:
        """A place that no item is beyond."""
        return np.uint64(2**64 - 1) if self.ties else np.float32(np.inf)

    @property
    def lowest(self) -> Any:
        """A place that every item is beyond."""
        return np.uint64(0) if self.ties else np.float32(-np.inf)

    def places(self, table: pa.Table, column: str = "") -> NDArray[Any]:
        """A number for each row of a table with these columns, in the order of the ranking. `column` is the name that
        the first one has in the table."""
        score_N: NDArray[np.float32] = table[column or self.column].to_numpy()
        return joint_order(score_N, table[self.ties].to_numpy()) if self.ties else score_N

    def first_of(self, score: float) -> Any:
        """The place of an item with this score and the lowest second one."""
        if not self.ties:
            return np.float32(score)
        return joint_order(np.array([score], np.float32), np.array([-np.inf], np.float32))[0]


def ranking_by(acquisition: str) -> Ranking:
    """The ranking by an acquisition function."""
    ties = ACQUISITIONS[acquisition].ties
    return Ranking(column_of(acquisition), column_of(ties) if ties else "")
