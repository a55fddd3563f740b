"""Rows come one after the other, each with its line, from a file of any size; one that is cut off is named."""

import csv
import io
import itertools
from itertools import chain, repeat

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.tables.row_stream import FORMS, Row, stream_rows
from tests.endless import Endless

CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)


def read(content: bytes, form: str, *needed: str) -> list[tuple[int, Row]]:
    return list(stream_rows(io.BytesIO(content), "t", form, [tuple(name.split("|")) for name in needed]))


@pytest.mark.parametrize(
    ("form", "head", "line"),
    [("csv", b"a,b\n", b"1,x\n"), ("tsv", b"a\tb\n", b"1\tx\n"), ("jsonl", b"", b'{"a": "1", "b": "x"}\n')],
)
def test_the_first_rows_of_an_endless_file_are_there_at_once(form: str, head: bytes, line: bytes) -> None:
    rows = stream_rows(io.BufferedReader(Endless(chain([head], repeat(line)))), "t", form, [("a",)])
    assert [row for _, row in itertools.islice(rows, 3)] == [{"a": "1", "b": "x"}] * 3


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1), st.sampled_from(["csv", "tsv"]))
def test_every_cell_comes_back(cells: list[list[str]], form: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter={"csv": ",", "tsv": "\t"}[form], quoting=csv.QUOTE_ALL).writerows([["a", "b"], *cells])
    for encoding in ("utf-8", "utf-8-sig"):
        rows = read(text.getvalue().encode(encoding), form, "a", "b")
        assert [[row["a"], row["b"]] for _, row in rows] == cells


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_three_ways_and_keep_their_numbers(end: str) -> None:
    text = end.join(["a,b", "1,x", "", '2,"two', 'lines"', "3,y"])
    for last in ("", end):
        found = read((text + last).encode(), "csv")
        assert [(line, row["a"]) for line, row in found] == [(2, "1"), (4, "2"), (6, "3")]
    if end != "\r":
        lines = end.join(['{"a": 1}', "", '{"a": "x\u2028y"}']).encode()
        assert [line for line, _ in read(lines, "jsonl")] == [1, 3]


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        (b"a,b\n1,x\n2", "csv", "t: line 3: truncated: the last line ends after 1 of 2 values; get the whole file"),
        (b"a\tb\n1\tx\n2", "tsv", "t: line 3: truncated: "),
        ('a,b\n1,"é'.encode()[:-1], "csv", "t: not valid UTF-8: line 2: "),
        (b'a,b\n1,"x', "csv", "t: line 2: not valid CSV: "),
        (b'{"a": 1}\n{"a": ', "jsonl", "t: line 2: truncated: the file is cut off in its last line"),
        ("a,b\n1,x\n".encode("utf-16"), "csv", "t: not valid UTF-8 but UTF-16; save it in UTF-8"),
        (b"\xfe\xff" + "a,b\n".encode("utf-16-be"), "csv", "t: not valid UTF-8 but UTF-16; save it in UTF-8"),
        ("a,b\n1,x\n".encode("utf-16-le"), "csv", "t: line 1: has a NUL character; save it in UTF-8"),
        ("a,b\n1,é\n".encode("latin-1"), "csv", "t: not valid UTF-8: line 2: "),
        (b"a\tb\n1\tx\ty\n", "tsv", "t: line 2: 3 values for 2 columns; quote tabs"),
        (b"", "csv", "t: the file is empty; every row needs a or A, b"),
        (b"a\n", "csv", "t: no column 'b' among 'a'; every row needs a or A, b"),
        (b'{"a": 1}\n', "jsonl", "t: no column 'b' among 'a'; every row needs a or A, b"),
        (b"[1]\n", "jsonl", "t: line 1: not an object with the names of columns: "),
        (b"PAR1", "parquet", "t: not a readable Parquet file: .*get the whole file"),
        (b"", "parquet", "t: not a readable Parquet file: .*get the whole file"),
    ],
)
def test_what_is_cut_off_or_of_another_kind_is_named(content: bytes, form: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(content, form, "a|A", "b")
    assert "\n" not in str(caught.value)


def test_a_column_of_json_lines_may_be_in_any_row_and_an_alternative_serves() -> None:
    assert len(read(b'{"A": 1}\n{"a": 2, "b": 3}\n', "jsonl", "a|A", "b")) == 2
    assert read(b"", "jsonl", "a") == []


def test_a_line_without_an_end_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.tables.row_stream._MOST_LINE_BYTES", 1000)
    with pytest.raises(InputError, match="t: line 1: more than 1,000 bytes; give one row a line"):
        next(stream_rows(io.BufferedReader(Endless(chain([b"["], repeat(b'{"a": 1}, ')))), "t", "jsonl"))


def test_parquet_comes_in_batches_with_its_numbers_and_whole_or_not_at_all() -> None:
    table = pa.table({"a": list(range(10_000)), "b": [["x"]] * 10_000})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=3000)
    rows = read(sink.getvalue(), "parquet", "a")
    assert [(line, row["a"]) for line, row in rows] == [(n + 1, n) for n in range(10_000)]
    for end in range(0, len(sink.getvalue()), 997):
        with pytest.raises(InputError, match="t: not a readable Parquet file"):
            read(sink.getvalue()[:end], "parquet", "a")


def test_forms_are_known_by_suffix() -> None:
    assert set(FORMS.values()) == {"csv", "tsv", "jsonl", "parquet"}


def test_the_line_that_excel_reads_first_is_no_header() -> None:
    assert list(stream_rows(io.BytesIO(b"sep=,\r\na,b\r\n1,2\r\n"), "t", "csv")) == [(3, {"a": "1", "b": "2"})]
    with pytest.raises(InputError, match="save it with commas instead of ';'"):
        list(stream_rows(io.BytesIO(b"sep=;\na;b\n1;2\n"), "t", "csv", [("a",)]))
