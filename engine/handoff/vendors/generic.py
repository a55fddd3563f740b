"""The vendor-neutral handoff: the tasks as CSV and JSON lines, under opaque item_ids."""

import csv
import io
import json
from typing import Any

from engine.handoff import TASK_COLUMNS
from engine.storage.location import Location
from engine.tables.rows import Row, read_rows


def write_tasks(folder: Location, tasks: list[dict[str, Any]]) -> dict[str, str]:
    """tasks.csv and tasks.jsonl. Returns the SHA-256 of each file by name."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, TASK_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tasks)
    lines = "".join(json.dumps(task) + "\n" for task in tasks)
    contents = {"tasks.csv": text.getvalue(), "tasks.jsonl": lines}
    return {name: (folder / name).write_bytes(content.encode()) for name, content in contents.items()}


def read_answers(file: Location) -> list[Row]:
    """CSV, JSON lines or Parquet with item_id and label. Raises InputError when the file is not that."""
    return read_rows(file, ("item_id",), ("label",))
