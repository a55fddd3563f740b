"""Values by file are those of a dictionary of lists, whatever is of no file."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from engine.selection.sources import Grouped


@given(st.lists(st.integers(-1, 3), max_size=12), st.lists(st.booleans(), min_size=4, max_size=4))
def test_values_by_file(files: list[int], wanted: list[bool]) -> None:
    values = [f"key {number}" for number in range(len(files))]
    found = Grouped.of(np.array(files, np.int64), pa.array(values, pa.string()), 4)
    expected = [[value for value, file in zip(values, files, strict=True) if file == n] for n in range(4)]
    assert [found.at(n, n + 1).to_pylist() for n in range(4)] == expected
    assert len(found.values) == found.counts.sum() == len(found.files)
    kept = found.where(np.array(wanted))
    assert kept.values.to_pylist() == [v for part, is_in in zip(expected, wanted, strict=True) if is_in for v in part]
    twice = found.joined(found)
    assert [twice.at(n, n + 1).to_pylist() for n in range(4)] == [part * 2 for part in expected]
