"""The rows of a CSV, TSV, JSON-lines or Parquet file, one after the other: a file of any size in bounded memory."""

import csv
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import InputError, one_line

Row = dict[str, Any]


class LastRow(Row):
    """The last row of a CSV text, where its line has no end: its last cell may be cut off."""


FORMS = {"csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet"}
"""The form of a file by its suffix."""
_MARKS = {"csv": ",", "tsv": "\t"}
_SEPARATOR = re.compile("sep=.")
_MOST_DIGITS = 100
"""Of a whole number in JSON."""
_MOST_LINE_BYTES = 64 << 20
"""A longer line is no row: a whole file in one line, for example one JSON list."""
_MOST_NAMED = 100
"""Columns of JSON lines that an error names."""
_BATCH_ROWS = 4096


def stream_rows(
    stream: IO[bytes], place: str, form: str, needed: Sequence[tuple[str, ...]] = ()
) -> Iterator[tuple[int, Row]]:
    """Yields each row with the line where it begins; in Parquet its number from 1.

    Args:
        place: names the file in errors.
        form: a value of FORMS.
        needed: columns that the file has, each with its alternatives. A file of JSON lines has a column if a row has
            it, which is known at its end.

    Raises InputError for a malformed or cut off file, text that is not UTF-8, and a column that is missing.
    """
    if form == "parquet":
        return _parquet_rows(stream, place, needed)
    if form == "jsonl":
        return _json_rows(stream, place, needed)
    return _csv_rows(_Texts(stream, place), place, _MARKS[form], needed)


def require_columns(place: str, names: Iterable[str], needed: Sequence[tuple[str, ...]]) -> None:
    """Raises InputError if a column is missing with all of its alternatives."""
    found = list(names)
    for choice in needed:
        if not set(choice) & set(found):
            why = f"no column {choice[0]!r} among {', '.join(map(repr, found)) or 'none'}; {_advice(choice[0], found)}"
            raise InputError(f"{place}: {why}every row needs {', '.join(map(' or '.join, needed))}")


def table_rows(place: str, table: pa.Table, first: int = 1) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a table, whose first one has the number `first`. Raises InputError for a value that Python
    does not know."""
    table = _in_microseconds(table)
    try:
        rows = table.to_pylist()
    except (ValueError, OverflowError):
        # Python has no years after 9999, and no text that is not UTF-8.
        rows = [_table_row(place, table, number, first) for number in range(len(table))]
    yield from enumerate(rows, first)


class _Texts:
    """The lines of a CSV text, each with its end, which \\r may be too. `is_cut`: the newest one has no end."""

    def __init__(self, stream: IO[bytes], place: str) -> None:
        self._lines = _lines(stream, place)
        self.is_cut = False

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            for text in io.StringIO(line, newline="") if "\r" in line else (line,):
                self.is_cut = not text.endswith(("\n", "\r"))
                yield text


def _lines(stream: IO[bytes], place: str) -> Iterator[str]:
    """Yields the lines that \\n ends, with it. Not splitlines: it also splits inside of texts."""
    number = 1
    while content := stream.readline(_MOST_LINE_BYTES):
        if len(content) == _MOST_LINE_BYTES:
            raise InputError(f"{place}: line {number}: more than {_MOST_LINE_BYTES:,} bytes; give one row a line")
        if number == 1 and content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{place}: not valid UTF-8 but UTF-16; save it in UTF-8")
        try:
            line = content.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{place}: not valid UTF-8: line {number}: {error}; save it in UTF-8") from error
        if "\0" in line:
            raise InputError(f"{place}: line {number}: has a NUL character; save it in UTF-8")
        yield line
        number += 1


def _csv_rows(texts: _Texts, place: str, mark: str, needed: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, Row]]:
    # Strict: without it a quotation mark that is not closed makes one value of all lines after it.
    reader = csv.reader(texts, delimiter=mark, strict=True)
    names: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not names and line == 1 and _SEPARATOR.fullmatch(mark.join(cells)):
                # A line for Excel alone.
                pass
            elif not names:
                names = cells
                _require_once(place, names)
                require_columns(place, names, needed)
            elif any(cells[len(names) :]):
                quote = "commas" if mark == "," else "tabs"
                raise InputError(f"{place}: line {line}: {len(cells)} values for {len(names)} columns; quote {quote}")
            elif cells and len(cells) < len(names) and texts.is_cut:
                why = f"the last line ends after {len(cells)} of {len(names)} values"
                raise InputError(f"{place}: line {line}: truncated: {why}; get the whole file")
            elif cells:
                row = {**dict.fromkeys(names), **dict(zip(names, cells, strict=False))}
                yield line, LastRow(row) if texts.is_cut else row
            line = reader.line_num + 1
    except csv.Error as error:
        why = f"{place}: line {line}: not valid CSV: {error}"
        raise InputError(f'{why}; close each quotation mark ("), and double it inside of a value') from error
    if not names and needed:
        raise InputError(f"{place}: the file is empty; every row needs {', '.join(map(' or '.join, needed))}")


def _json_rows(stream: IO[bytes], place: str, needed: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, Row]]:
    names: dict[str, None] = {}
    missing, has_rows = set(needed), False
    for line, content in enumerate(_lines(stream, place), 1):
        if not content.strip():
            continue
        where = f"{place}: line {line}"
        try:
            row = json.loads(content, object_pairs_hook=_object, parse_int=_whole)
        except (ValueError, RecursionError) as error:
            is_cut = not content.endswith("\n") and not content.rstrip().endswith("}")
            if is_cut and isinstance(error, json.JSONDecodeError):
                raise InputError(
                    f"{where}: truncated: the file is cut off in its last line; get the whole file"
                ) from error
            raise InputError(f"{where}: not valid JSON: {one_line(error)}; correct the line") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: not an object with the names of columns: {content[:60].strip()}")
        has_rows = True
        if missing:
            missing = {choice for choice in missing if not set(choice) & row.keys()}
            names |= dict.fromkeys(row) if len(names) < _MOST_NAMED else {}
        yield line, row
    if missing and has_rows:
        require_columns(place, names, needed)


def _object(pairs: list[tuple[str, Any]]) -> Row:
    """A JSON object. Raises ValueError if it says a thing twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _whole(digits: str) -> int:
    """A whole number of JSON. Raises ValueError for one that nobody counts with."""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _parquet_rows(stream: IO[bytes], place: str, needed: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, Row]]:
    # Parquet is read from its end: a member of a zip archive would be unpacked again and again.
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file)
        try:
            parquet = pq.ParquetFile(file)
            names = parquet.schema_arrow.names
            _require_once(place, names)
            require_columns(place, names, needed)
            first = 1
            for batch in parquet.iter_batches(_BATCH_ROWS):
                yield from table_rows(place, pa.Table.from_batches([batch]), first)
                first += len(batch)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{place}: not a readable Parquet file: {one_line(error)}; get the whole file") from error


def _table_row(place: str, table: pa.Table, number: int, first: int) -> Row:
    row: Row = {}
    for name in table.column_names:
        try:
            row[name] = table[name][number].as_py()
        except (ValueError, OverflowError) as error:
            why = f"{place}: line {first + number}: {name!r} cannot be read: {one_line(error)}"
            raise InputError(f"{why}; correct it") from error
    return row


def _require_once(place: str, names: list[str]) -> None:
    """Raises InputError for two columns of one name. Columns without a name may be many."""
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(f"{place}: two columns {twice[0]!r}; keep one")


def _in_microseconds(table: pa.Table) -> pa.Table:
    """The table with every time in microseconds: Python has no finer ones."""
    for number, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            times = table[field.name].cast(pa.timestamp("us", field.type.tz), safe=False)
            table = table.set_column(number, field.name, times)
    return table


def _advice(missing: str, found: Iterable[str]) -> str:
    for name in found:
        if name.strip().lower() == missing:
            return f"rename {name!r} to {missing!r}; "
        if separator := next((mark for mark in (";", "\t", "|") if mark in name), ""):
            return f"save it with commas instead of {separator!r}; "
    return ""
