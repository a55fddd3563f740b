"""Task files as bytes: lines of CSV, TSV and JSON, and as many files as a vendor's limits take."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from engine.tables.harmless import harmless


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


def json_line(content: Any) -> bytes:
    """A compact line of JSON."""
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def json_file(content: Any) -> bytes:
    """JSON for people to read."""
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def in_files(
    name: str, lines: Iterable[bytes], *, most_bytes: int, most_lines: int, header: bytes = b""
) -> Iterator[tuple[str, bytes]]:
    """Yields one file `name`, or as many as the limits ask for: NAME-001.SUFFIX and so on. `header` begins each.

    Args:
        most_bytes: of a file with its header. A line is never split.
        most_lines: of a file without its header.
    """
    files: list[list[bytes]] = [[]]
    size = len(header)
    for line in lines:
        if files[-1] and (len(files[-1]) == most_lines or size + len(line) > most_bytes):
            files.append([])
            size = len(header)
        files[-1].append(line)
        size += len(line)
    stem, _, suffix = name.rpartition(".")
    for number, part in enumerate(files, 1):
        yield name if len(files) == 1 else f"{stem}-{number:03d}.{suffix}", header + b"".join(part)
