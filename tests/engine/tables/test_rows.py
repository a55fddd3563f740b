"""A cell says the same in every format, and an error names its line."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from engine.storage.location import Location
from engine.tables.rows import read_rows
from engine.tables.values import is_blank, moment_of, text_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (False, "false"), (True, "true"), (3.0, "3"), (3.5, "3.5"), (" cat ", "cat"), ("nan", "nan"),
        ("null", "null"), ("3.0", "3.0"), (None, ""), (float("nan"), ""), ("", ""), ("  ", ""),
    ],
)  # fmt: skip
def test_a_cell_as_text(value: Any, text: str) -> None:
    assert text_of(value, "here") == text
    assert is_blank(value) == (text == "")


@pytest.mark.parametrize("value", [["a"], {"a": 1}, float("inf"), b"x"])
def test_what_is_not_one_value_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="here is "):
        text_of(value, "here")


def test_a_moment_in_every_form() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for value in ("2026-01-31T12:00:00Z", "2026-01-31 12:00", 1769860800, 1769860800.0, 1769860800000, "1769860800"):
        assert moment_of(value, "here") == noon
    assert moment_of(date(2026, 1, 31), "here") == moment_of("20260131", "here") == noon.replace(hour=0)
    assert (datetime.now(UTC) - moment_of(None, "here")).total_seconds() < 60
    for value in ("yesterday", True, 1e30, [1], float("-inf")):
        with pytest.raises(InputError, match=r"here .* is not an ISO 8601 time"):
            moment_of(value, "here")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_every_unit(tmp_path: Path, unit: str) -> None:
    times = pa.array([1769860800123456789], pa.timestamp("ns", "UTC")).cast(pa.timestamp(unit, "UTC"), safe=False)
    pq.write_table(pa.table({"a": ["x"], "labelled_at": times}), tmp_path / "t.parquet")
    (row,) = read_rows(Location(str(tmp_path / "t.parquet")), ("a",))
    assert moment_of(row["labelled_at"], "").replace(microsecond=0) == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    files = {"t.csv": 'a,b\n1,x\n\n2,"two\nlines"\n3,\n', "t.jsonl": '{"a": 1}\n\n{"a": "x\u2028y"}\n{"a": 2}\n'}
    lines = []
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        lines.append([row["line"] for row in read_rows(Location(str(tmp_path / name)), ("a",))])
    assert lines == [[2, 4, 6], [1, 3, 4]]


def test_a_column_of_integers_with_gaps_in_csv(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c,d\n1,3.0,3.0,3.0\n2,,,1.0\n3,0.0,1.5,2.0\n")
    rows = read_rows(Location(str(tmp_path / "t.csv")), ("a",))
    assert [[row[name] for row in rows] for name in "bcd"] == [
        ["3", "", "0"],
        ["3.0", "", "1.5"],
        ["3.0", "1.0", "2.0"],
    ]


def test_too_many_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,x,y\n")
    with pytest.raises(InputError, match="line 2: 3 values for 2 columns"):
        read_rows(Location(str(tmp_path / "t.csv")), ("a",))
