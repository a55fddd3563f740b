"""A digest of rows is that of their sorted texts."""

import hashlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tables import row_digests
from engine.tables.row_digests import digest_of_rows

TEXTS = st.text(st.sampled_from("ab\té\n🙂"), max_size=4)
ROWS = st.lists(st.tuples(TEXTS, st.none() | TEXTS, st.none() | st.integers(-3, 2**31 - 1)), max_size=30)


@given(ROWS)
def test_it_is_that_of_the_sorted_rows(rows: list[tuple[str, str | None, int | None]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    schema = pa.schema([("a", pa.string()), ("b", pa.string()), ("c", pa.int32())])
    expected = "\n".join(sorted("\t".join(map(str, row)) for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_digests, "_BLOCK", 7)
        assert digest_of_rows(pa.table(columns, schema=schema)) == hashlib.sha256(expected.encode()).hexdigest()
