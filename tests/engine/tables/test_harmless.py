"""No cell that is written runs in a spreadsheet, and none is changed on its way back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tables.harmless import harmless, restored

CELLS = st.text() | st.text("'=+-@\t\ra")


@given(CELLS)
def test_a_cell_runs_nowhere_and_comes_back(text: str) -> None:
    assert harmless(text)[:1] not in tuple("=+-@\t\r")
    assert restored(harmless(text)) == text


@pytest.mark.parametrize(("text", "cell"), [("=1", "'=1"), ("'-x", "''-x"), ("a=1", "a=1"), ("'a", "'a"), ("", "")])
def test_only_what_needs_it_is_changed(text: str, cell: str) -> None:
    assert harmless(text) == cell
