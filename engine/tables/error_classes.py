"""Quarantined items by their errors, with examples."""

from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from engine.storage.location import Location
from engine.tables.scores import QUARANTINE_SCHEMA, ShardRecord, count_errors

READ_THREADS = 16


class ErrorClass(NamedTuple):
    """Quarantined items with the same error: "stage/error", their number, and rows of a few of them."""

    name: str
    items: int
    examples: list[dict[str, Any]]


def survey(folder: Location, records: Collection[ShardRecord], num_examples: int) -> list[ErrorClass]:
    """The errors in quarantine, the most frequent first. Reads only as many files as the examples need, at once."""
    totals = count_errors(records)
    missing, files = Counter({name: num_examples for name in totals}), list[Location]()
    for record in sorted(records):
        if any(missing[name] > 0 for name in record.errors):
            files.append(folder / record.file)
            missing.subtract(record.errors)
    examples: dict[str, list[dict[str, Any]]] = {name: [] for name in totals}
    with ThreadPoolExecutor(READ_THREADS) as threads:
        for table in threads.map(lambda file: file.read_typed_table(QUARANTINE_SCHEMA), files):
            for row in table.to_pylist():
                found = examples[f"{row['stage']}/{row['error']}"]
                if len(found) < num_examples:
                    found.append(row)
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [ErrorClass(name, count, examples[name]) for name, count in ordered]
