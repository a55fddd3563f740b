"""The rows of a user's table: CSV, JSON lines or Parquet."""

import csv
import io
import json
from typing import Any

from engine.errors import InputError
from engine.storage.location import Location

Row = dict[str, Any]


def read_rows(source: Location, required: tuple[str, ...], line_key: str = "line") -> list[Row]:
    """The rows of a CSV, JSON-lines or Parquet file, each with its line added as `line_key`, for error messages.

    Raises InputError if the format is unknown, a line is malformed, or a required column is missing from a row.
    """
    content = source.read_bytes()
    suffix = source.name.rpartition(".")[2].lower()
    try:
        if suffix == "csv":
            rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
        elif suffix in ("jsonl", "ndjson"):
            rows = [json.loads(line) for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        elif suffix == "parquet":
            rows = source.read_table().to_pylist()
        else:
            raise InputError(f"{source}: unknown format .{suffix}; give .csv, .jsonl or .parquet")
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise InputError(f"{source}: not valid {suffix}: {error}") from error
    first_line = 2 if suffix == "csv" else 1
    for line, row in enumerate(rows, first_line):
        missing = [column for column in required if not isinstance(row, dict) or row.get(column) is None]
        if missing:
            raise InputError(f"{source}: line {line}: no {missing[0]!r}; every row needs {', '.join(required)}")
        row[line_key] = line
    return rows
