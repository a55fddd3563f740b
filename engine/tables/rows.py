"""The rows of a user's table: CSV, JSON lines or Parquet."""

import io

from engine.errors import InputError
from engine.storage.location import Location
from engine.tables.row_stream import FORMS, require_columns, stream_rows, table_rows
from engine.tables.row_stream import Row as Row
from engine.tables.values import is_blank


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
    form = FORMS.get(suffix)
    if form not in ("csv", "jsonl", "parquet"):
        raise InputError(f"{source}: unknown format .{suffix}; give .csv, .jsonl or .parquet")
    needed = [(name,) for name in (*filled, *columns)]
    if form == "parquet":
        table = source.read_table()
        require_columns(str(source), table.column_names, needed)
        found = table_rows(str(source), table)
    else:
        found = stream_rows(io.BytesIO(source.read_bytes()), str(source), form, needed)
    rows: list[Row] = []
    for line, row in found:
        for name in filled:
            if is_blank(row.get(name)):
                raise InputError(f"{source}: line {line}: no {name!r}; every row needs {', '.join(filled)}")
        row[line_key] = line
        rows.append(row)
    return rows
