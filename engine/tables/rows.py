"""The rows of a user's table: CSV, JSON lines or Parquet."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from engine.errors import InputError
from engine.storage.location import Location
from engine.tables.values import is_blank

Row = dict[str, Any]
_LINE = "\0line"
"""The key of a row's line while it is read: no column has this name."""
INTEGRAL = re.compile(r"[+-]?\d+\.0")


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
    try:
        if suffix == "csv":
            names, rows = _csv_rows(source, source.read_bytes().decode("utf-8-sig"))
        elif suffix in ("jsonl", "ndjson"):
            rows = list(_json_rows(source, source.read_bytes().decode("utf-8-sig")))
            names = list({name: None for row in rows for name in row})
        elif suffix == "parquet":
            table = _in_microseconds(source.read_table())
            names, rows = table.column_names, table.to_pylist()
            rows = [{**row, _LINE: line} for line, row in enumerate(rows, 1)]
        else:
            raise InputError(f"{source}: unknown format .{suffix}; give .csv, .jsonl or .parquet")
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise InputError(f"{source}: not valid {suffix}: {error}") from error
    needed = (*filled, *columns)
    if missing := [name for name in needed if name not in names] if rows or suffix != "jsonl" else []:
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


def _csv_rows(source: Location, text: str) -> tuple[list[str], list[Row]]:
    """The names of the columns, and the rows. The line of a row is where it begins."""
    reader = csv.reader(io.StringIO(text, newline=""))
    names: list[str] = []
    rows: list[Row] = []
    last_line = 0
    for cells in reader:
        line, last_line = last_line + 1, reader.line_num
        if not cells:
            continue
        if not names:
            names = cells
            continue
        if any(cells[len(names) :]):
            raise InputError(f"{source}: line {line}: {len(cells)} values for {len(names)} columns; quote commas")
        rows.append({**dict.fromkeys(names), **dict(zip(names, cells, strict=False)), _LINE: line})
    for name in names:
        _drop_points(rows, name)
    return names, rows


def _drop_points(rows: list[Row], name: str) -> None:
    """Undo what a column of integers with gaps becomes where gaps make it one of floats: 3.0 is 3."""
    values = [row[name] for row in rows if row[name]]
    if 0 < len(values) < len(rows) and all(map(INTEGRAL.fullmatch, values)):
        for row in rows:
            row[name] = (row[name] or "").removesuffix(".0")


def _json_rows(source: Location, text: str) -> Iterator[Row]:
    # Not splitlines: it also splits inside of texts.
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            row = json.loads(content)
            if not isinstance(row, dict):
                raise InputError(f"{source}: line {line}: not an object with the names of columns: {content[:60]}")
            yield {**row, _LINE: line}


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
