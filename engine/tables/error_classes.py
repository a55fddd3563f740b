"""Quarantined items by their errors, with examples."""

from collections.abc import Collection
from typing import Any, NamedTuple

from engine.storage.location import Location
from engine.tables.scores import QUARANTINE_SCHEMA, ShardRecord, count_errors


class ErrorClass(NamedTuple):
    """Quarantined items with the same error: "stage/error", their number, and rows of a few of them."""

    name: str
    items: int
    examples: list[dict[str, Any]]


def survey(folder: Location, records: Collection[ShardRecord], num_examples: int) -> list[ErrorClass]:
    """The errors in quarantine, the most frequent first. Reads only as many files as the examples need."""
    totals = count_errors(records)
    examples: dict[str, list[dict[str, Any]]] = {name: [] for name in totals}
    for record in sorted(records):
        if any(len(examples[name]) < num_examples for name in record.errors):
            for row in (folder / record.file).read_typed_table(QUARANTINE_SCHEMA).to_pylist():
                found = examples[f"{row['stage']}/{row['error']}"]
                if len(found) < num_examples:
                    found.append(row)
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [ErrorClass(name, count, examples[name]) for name, count in ordered]
