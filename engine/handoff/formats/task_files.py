"""Task files as bytes: lines of CSV, TSV and JSON, and as many files as a vendor's limits take."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from engine.errors import ConfigError
from engine.handoff.exchange import Outgoing
from engine.tables.harmless import harmless

T = TypeVar("T")


def csv_lines(rows: Iterable[Iterable[object]], mark: str = ",") -> Iterator[bytes]:
    """Yields each row as a line with `mark` between the cells. No cell runs in a spreadsheet."""
    line = io.StringIO(newline="")
    # Of line ends in a cell the writer quotes those that are its own.
    writer = csv.writer(line, delimiter=mark, lineterminator="\r\n")
    for row in rows:
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in row])
        yield line.getvalue().removesuffix("\r\n").encode() + b"\n"
        line.seek(0)
        line.truncate()


def compact(value: Any) -> str:
    """A value as JSON on one line, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_line(value: Any) -> bytes:
    """A value as a line of JSON lines."""
    return f"{compact(value)}\n".encode()


def json_list(values: Iterable[Any]) -> bytes:
    """Values as a JSON list, one a line."""
    return ("[\n" + ",\n".join(map(compact, values)) + "\n]\n").encode()


def json_file(value: Any) -> bytes:
    """A value as indented JSON, for people to read."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def in_files(
    name: str, lines: Iterable[bytes], *, most_bytes: int, most_lines: int, header: bytes = b""
) -> Iterator[tuple[str, bytes]]:
    """Yields one file `name`, or as many as the limits ask for: NAME-001.SUFFIX and so on. `header` begins each. Holds
    one file.

    Args:
        most_bytes: of a file with its header. A line is never split.
        most_lines: of a file without its header.
    """
    part, size, number = [header], len(header), 1
    for line in lines:
        if len(part) > 1 and (len(part) > most_lines or size + len(line) > most_bytes):
            yield _numbered(name, number), b"".join(part)
            part, size, number = [header], len(header), number + 1
        part.append(line)
        size += len(line)
    yield _numbered(name, number) if number > 1 else name, b"".join(part)


def rows_in_files(name: str, rows: Sequence[T], most: int) -> Iterator[tuple[str, Sequence[T]]]:
    """Yields the rows of each file under its name, as `in_files`: at most `most` in a file."""
    for number, start in enumerate(range(0, len(rows) or 1, most), 1):
        yield _numbered(name, number) if len(rows) > most else name, rows[start : start + most]


def require_classes(batch: Outgoing, vendor: str) -> None:
    """Raises ConfigError if the question names no classes, or a prelabel is none of them."""
    if not batch.question.classes:
        raise ConfigError(f"handoff.question.classes is empty, and {vendor} needs the classes; name them")
    known = {"", *batch.question.classes}
    if unknown := next((task.prelabel for task in batch.tasks if task.prelabel not in known), ""):
        raise ConfigError(f"handoff.question.classes lacks {unknown!r}, which a network guesses; add it")


def _numbered(name: str, number: int) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem}-{number:03}.{suffix}"
