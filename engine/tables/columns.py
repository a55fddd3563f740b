"""Columns of tables, and their rows by number."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def required(kind: pa.DataType, *names: str) -> list[pa.Field]:
    """Columns of one type that hold no nulls."""
    return [pa.field(name, kind, nullable=False) for name in names]


def rows_where(table: pa.Table, is_wanted_N: NDArray[np.bool_]) -> pa.Table:
    """The rows of a mask. Where that is all, nothing is copied."""
    return table if is_wanted_N.all() else table.filter(pa.array(is_wanted_N, pa.bool_()))


class RowBatches:
    """The batches of a table, and any row of it without a look at the others."""

    def __init__(self, table: pa.Table, most_rows: int | None = None) -> None:
        """With so many rows in a batch at most."""
        self.batches = table.to_batches(most_rows)
        self._ends = np.cumsum([batch.num_rows for batch in self.batches])

    def row(self, number: int) -> list[Any]:
        """The values of a row, from 0 on."""
        place = int(np.searchsorted(self._ends, number, side="right"))
        row = number - (int(self._ends[place - 1]) if place else 0)
        return [column[row].as_py() for column in self.batches[place].columns]
