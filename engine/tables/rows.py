"""The rows of a user's table: CSV, JSON lines or Parquet."""

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from engine.errors import InputError, one_line
from engine.storage.location import Location
from engine.tables.values import is_blank

Row = dict[str, Any]
_LINE = "\0line"
"""The key of a row's line while it is read: no column has this name."""
_MOST_DIGITS = 100
"""Of a whole number in JSON."""


def read_rows(
    source: Location, filled: tuple[str, ...], columns: tuple[str, ...] = (), *, line_key: str = "line"
) -> list[Row]:
    """The rows of a CSV, JSON-lines or Parquet file, each with its line added as `line_key`, for error messages.

    Args:
        filled: columns that have a value in every row.
        columns: columns that the file has, and that may be blank.

    Raises InputError if the format is unknown, a line is malformed, or a column or its value is missing.
    """
    suffix = source.name.rpartition(".")[2].lower()
    if suffix == "csv":
        names, rows = _csv_rows(source)
    elif suffix in ("jsonl", "ndjson"):
        names, rows = _json_rows(source)
    elif suffix == "parquet":
        names, rows = _parquet_rows(source)
    else:
        raise InputError(f"{source}: unknown format .{suffix}; give .csv, .jsonl or .parquet")
    needed = (*filled, *columns)
    if missing := [name for name in needed if name not in names] if rows or suffix not in ("jsonl", "ndjson") else []:
        found = [name for name in names if name != _LINE]
        why = f"no column {missing[0]!r} among {', '.join(map(repr, found)) or 'none'}; {_advice(missing[0], found)}"
        raise InputError(f"{source}: {why}every row needs {', '.join(needed)}")
    for row in rows:
        for name in filled:
            if is_blank(row.get(name)):
                raise InputError(f"{source}: line {row[_LINE]}: no {name!r}; every row needs {', '.join(filled)}")
    for row in rows:
        row[line_key] = row.pop(_LINE)
    return rows


def _csv_rows(source: Location) -> tuple[list[str], list[Row]]:
    """The names of the columns, and the rows. The line of a row is where it begins."""
    # Strict: without it a quotation mark that is not closed makes one value of all lines after it.
    reader = csv.reader(io.StringIO(_text(source), newline=""), strict=True)
    names: list[str] = []
    rows: list[Row] = []
    line = 1
    try:
        for cells in reader:
            if not names:
                names = cells
                _require_once(source, names)
            elif any(cells[len(names) :]):
                raise InputError(f"{source}: line {line}: {len(cells)} values for {len(names)} columns; quote commas")
            elif cells:
                rows.append({**dict.fromkeys(names), **dict(zip(names, cells, strict=False)), _LINE: line})
            line = reader.line_num + 1
    except csv.Error as error:
        why = f"{source}: line {line}: not valid CSV: {error}"
        raise InputError(f'{why}; close each quotation mark ("), and double it inside of a value') from error
    return names, rows


def _json_rows(source: Location) -> tuple[list[str], list[Row]]:
    rows: list[Row] = []
    # Not splitlines: it also splits inside of texts.
    for line, content in enumerate(_text(source).split("\n"), 1):
        if content.strip():
            where = f"{source}: line {line}"
            try:
                row = json.loads(content, object_pairs_hook=_object, parse_int=_whole)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: not valid JSON: {one_line(error)}; correct the line") from error
            if not isinstance(row, dict):
                raise InputError(f"{where}: not an object with the names of columns: {content[:60]}")
            rows.append({**row, _LINE: line})
    return list({name: None for row in rows for name in row}), rows


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


def _parquet_rows(source: Location) -> tuple[list[str], list[Row]]:
    table = _in_microseconds(source.read_table())
    try:
        rows = table.to_pylist()
    except (ValueError, OverflowError):
        # Python has no years after 9999, and no text that is not UTF-8.
        rows = [_parquet_row(source, table, line) for line in range(1, len(table) + 1)]
    return table.column_names, [{**row, _LINE: line} for line, row in enumerate(rows, 1)]


def _parquet_row(source: Location, table: pa.Table, line: int) -> Row:
    row: Row = {}
    for name in table.column_names:
        try:
            row[name] = table[name][line - 1].as_py()
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{source}: line {line}: {name!r} cannot be read: {one_line(error)}; correct it"
            ) from error
    return row


def _require_once(source: Location, names: list[str]) -> None:
    """Raises InputError for two columns of one name. Columns without a name may be many."""
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(f"{source}: two columns {twice[0]!r}; keep one")


def _text(source: Location) -> str:
    try:
        return source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not valid UTF-8: {error}; save it in UTF-8") from error


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
