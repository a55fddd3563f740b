"""A cell says the same in every format, and an error names its line."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from engine.storage.location import Location
from engine.tables.rows import read_rows
from engine.tables.values import class_of, is_blank, is_no_label, moment_of, text_of

FORMATS = ("csv", "jsonl", "parquet")


def label_of(cell: Any) -> str:
    """A cell of a table as a label."""
    label = class_of(cell, "here")
    return "" if is_no_label(label) else label


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


@pytest.mark.parametrize(
    ("cells", "label"),
    [
        ((3, 3.0, "3", "3.0", "3.00", " 3.0 "), "3"),
        ((0, 0.0, -0.0, "0.0", "-0.0"), "0"),
        ((True, "true", "True", "TRUE"), "true"),
        ((False, "false", "False"), "false"),
        ((None, "", " ", float("nan"), "nan", "NaN", "NAN"), ""),
        (("null", "NULL", "N/A", "n/a", "#N/A", "<NA>", "None"), ""),
        ((" cat ", "cat", "\xa0cat", "cat\u3000"), "cat"),
        (("ma\u00f1ana", "man\u0303ana"), "ma\u00f1ana"),
        (("hot dog", "hot\xa0dog", "hot\u2009dog"), "hot dog"),
        # These are not how a program writes a whole number.
        (("007",), "007"), (("007.0",), "007.0"), (("1e3",), "1e3"), (("3.10",), "3.10"), (("none",), "none"),
    ],
)  # fmt: skip
def test_a_label_is_one_class_however_it_is_written(tmp_path: Path, cells: tuple[Any, ...], label: str) -> None:
    assert [label_of(cell) for cell in cells] == [label] * len(cells)
    for number, cell in enumerate(cells):
        # As CSV a cell is what print says; every cell is in a column with gaps, and in one without.
        (tmp_path / "t.csv").write_text(f"a,label,other\n1,{'' if cell is None else cell},\n2,,\n")
        (tmp_path / "t.jsonl").write_text(json.dumps({"a": 1, "label": cell}) + "\n")
        pq.write_table(pa.table({"a": [1], "label": [cell]}), tmp_path / "t.parquet")
        rows = [read_rows(Location(str(tmp_path / f"t.{name}")), ("a",), ("label",))[0] for name in FORMATS]
        assert [label_of(row["label"]) for row in rows] == [label] * 3, number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,x\n2,"y\n3,z\n', "t.csv: line 3: not valid CSV: .*close each quotation mark"),
        ('a,b\n1,"x"y\n', "t.csv: line 2: not valid CSV: "),
        ("a,b,b\n1,2,3\n", "t.csv: two columns 'b'; keep one"),
        ("a,b\n1,x,y\n", "t.csv: line 2: 3 values for 2 columns"),
        (b"a\n\xff\n", "t.csv: not valid UTF-8"),
        ('{"a": 1}\n{"a": 1, "b": 2, "a": 3}\n', "t.jsonl: line 2: not valid JSON: 'a' is there twice"),
        ('{"a": 1}\n' + '{"a": ' * 100_000, "t.jsonl: line 2: not valid JSON: .*recursion"),
        ('{"a": ' + "1" * 5000 + "}\n", "t.jsonl: line 1: not valid JSON: a number of 5,000 digits; correct the line"),
        ("{", "t.jsonl: line 1: truncated: the file is cut off in its last line; get the whole file$"),
        ("{\n", "t.jsonl: line 1: not valid JSON: "),
        ('{"a": 1 "b": 2}', "t.jsonl: line 1: not valid JSON: "),
    ],
)
def test_what_cannot_be_read_is_named_by_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    file = tmp_path / ("t.jsonl" if "jsonl" in message else "t.csv")
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=message):
        read_rows(Location(str(file)), ("a",))


def test_a_cell_of_parquet_that_python_does_not_know_is_named(tmp_path: Path) -> None:
    times = pa.array([0, 2**60], pa.timestamp("us"))
    pq.write_table(pa.table({"a": ["x", "y"], "labelled_at": times}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t.parquet: line 2: 'labelled_at' cannot be read"):
        read_rows(Location(str(tmp_path / "t.parquet")), ("a",))
    twice = pa.table([["x"], ["y"]], names=["a", "a"])
    pq.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t.parquet: not a readable Parquet file: Multiple matches"):
        read_rows(Location(str(tmp_path / "t.parquet")), ("a",))


@pytest.mark.parametrize("label", ["cat\nid2,dog", "a\tb", "a\x00b", "a\u2028b", "\ud800", "cat\udcff"])
def test_a_label_is_unicode_text_on_one_line(label: str) -> None:
    with pytest.raises(InputError, match=r"here is .*(take it out, or close the quotation mark|write it in UTF-8)"):
        label_of(label)


def test_a_word_for_nothing_is_a_class_where_one_is_called_so() -> None:
    assert all(is_no_label(word, known) for word, known in (("NaN", ()), (" null ", ["nan"]), ("", [""])))
    assert not any(is_no_label(word, [word]) for word in ("nan", "N/A", "None", "null"))
    # The class is called otherwise: this is how a program writes that there is none.
    assert is_no_label("NaN", ["nan"])
