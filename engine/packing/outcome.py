"""What a pool holds after packing: its labels as a file for `vaal init`, and everything that could not be packed."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import NotAcceptableError
from engine.packing.pack_batches import batches_of, items_of, on_scratch_disk, scratch_file
from engine.storage.location import Location, masked
from engine.tables.scores import to_table

LABELS_FILE, FAILURES_FILE = "labels.csv", "failures.parquet"
FAILURES_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("source", "key", "error", "message")]
)
EXAMPLES = 3


class _Failure(NamedTuple):
    key: str
    error: str
    message: str


class Contents(NamedTuple):
    """All that was packed into a pool, in all its batches.

    Attributes:
        images: in its shards.
        failures: how many could not be packed, by error, the most frequent first.
        formats: how many images have each suffix.
        labels: how many images have each label.
        examples: up to EXAMPLES sources with their messages, by error.
    """

    images: int
    failures: Counter[str]
    formats: Counter[str]
    labels: Counter[str]
    examples: dict[str, list[str]]


def summarise(pool: Location, labels: Location) -> Contents:
    """Write the labels of a pool, if there are any, and its failures; and count what is in it.

    An image that failed in one batch and was packed in a later one is no failure. Raises StorageError if a file cannot
    be written.
    """
    images, formats, classes = 0, Counter[str](), Counter[str]()
    failed: dict[str, list[_Failure]] = {}
    for batch in batches_of(pool):
        formats.update(batch.manifest["formats"])
        of_batch: dict[str, list[_Failure]] = {}
        for items in items_of(batch):
            is_packed = pc.not_equal(items["shard"], "")
            packed = items.filter(is_packed)
            images += len(packed)
            for label in packed["label"].drop_null().value_counts().to_pylist():
                classes[label["values"]] += label["counts"]
            # What is tried again was not packed before, and only its newest word counts.
            for source in items["source"].unique().to_pylist() if failed else ():
                failed.pop(source, None)
            for row in items.filter(pc.invert(is_packed)).to_pylist():
                of_batch.setdefault(row["source"], []).append(_Failure(row["key"], row["error"], row["message"]))
        failed |= of_batch
    if classes:
        _write_labels(pool, labels)
    rows = [(masked(source), *failure) for source, failures in failed.items() for failure in failures]
    _write_failures(pool, rows)
    examples: dict[str, list[str]] = {}
    for source, _, error, message in rows:
        if len(found := examples.setdefault(error, [])) < EXAMPLES:
            found.append(f"{source}: {message}")
    return Contents(images, Counter(row[2] for row in rows), formats, classes, examples)


def _write_labels(pool: Location, file: Location) -> None:
    with scratch_file() as draft:
        text = io.TextIOWrapper(draft, "utf-8", newline="")
        with on_scratch_disk():
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(("shard", "key", "label"))
            for items in _labelled(pool):
                writer.writerows(zip(*(items[name].to_pylist() for name in ("shard", "key", "label")), strict=True))
            text.flush()
        draft.seek(0)
        file.write_file(draft)
        text.detach()


def _labelled(pool: Location) -> Iterator[pa.Table]:
    for batch in batches_of(pool):
        for items in items_of(batch):
            yield items.filter(pc.and_(pc.not_equal(items["shard"], ""), pc.is_valid(items["label"])))


def _write_failures(pool: Location, rows: list[tuple[str, str, str, str]]) -> None:
    file = pool / FAILURES_FILE
    if rows:
        file.write_table(to_table(rows, FAILURES_SCHEMA))
    elif file.exists():
        file.delete()


def require_acceptable(pool: Location, contents: Contents, most: float) -> None:
    """Raises NotAcceptableError if more than this fraction of the images could not be packed."""
    num_bad = contents.failures.total()
    total = num_bad + contents.images
    if num_bad > most * total:
        kinds = ", ".join(f"{count:,} x {error}" for error, count in contents.failures.most_common())
        raise NotAcceptableError(
            f"{pool}: {num_bad:,} of {total:,} images ({num_bad / total:.1%}) could not be packed: {kinds}; "
            f"--max-bad-fraction={most:g} is the limit; see {pool / FAILURES_FILE}, fix the source and run again, or "
            "accept the loss: --max-bad-fraction 1"
        )
