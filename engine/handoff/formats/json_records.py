"""Vendors' JSON: read record by record, and written with the same bytes each time."""

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import IO, Any, TypeVar

import ijson

from engine.errors import ConfigError, InputError, one_line
from engine.handoff.exchange import Answer, AnswerFile, Outgoing
from engine.tables.values import is_blank, moment_of

T = TypeVar("T")
Record = dict[str, Any]
HEAD_BYTES = 65_536
MOST_OPEN = 2000
"""So many brackets may be open in a record. The parser's memory grows with the square of the depth, so that a file that
only opens brackets would take all of it. (Brackets in texts count too; nobody has so many that do not close.)"""
_BOM = b"\xef\xbb\xbf"
_FOREIGN = (AttributeError, IndexError, InputError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError)
"""What reading raises where a record has another form than the vendor's."""


def read_records(
    file: AnswerFile, refusal: Callable[[Record], str], answers: Callable[[str, Record], Iterable[Answer]]
) -> Iterator[Answer]:
    """The answers of a JSON file: a list of objects, an object a line, or one object. Holds one object at a time.

    Args:
        refusal: why a record shows that the file is not what can be read, with the fix; empty if it is.
        answers: the answers of a record, given its place. An error in it is the fault of that record.

    Raises InputError if the file is empty, cut off, not JSON in UTF-8, or refused.
    """
    for number, record in enumerate(_records(file), 1):
        where = f"record {number}"
        why = refusal(record) if isinstance(record, dict) else "not an object; export it again"
        if why:
            raise InputError(f"{file.place}: {where}: {why}")
        try:
            found = list(answers(where, record))
        except _FOREIGN as error:
            text = one_line(error) if isinstance(error, InputError) else f"{type(error).__name__}: {one_line(error)}"
            found = [Answer(where, "", None, fault=f"cannot be read: {text}; correct the record or export it again")]
        yield from found


def _records(file: AnswerFile) -> Iterator[Any]:
    head = head_of(file)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{file.place}: in UTF-16; save it in UTF-8")
    start = start_of(head)
    if not start:
        raise InputError(f"{file.place}: empty; export it again")
    if start[:1] not in b"[{":
        raise InputError(f"{file.place}: not JSON, it begins with {start[:20]!r}; export JSON")
    count = 0
    try:
        with file.open() as stream:
            stream.read(len(_BOM) if head.startswith(_BOM) else 0)
            path = "item" if start.startswith(b"[") else ""
            shallow = _Shallow(stream)
            for record in ijson.items(shallow, path, multiple_values=not path, use_float=True):
                count += 1
                shallow.num_open = 0
                yield record
    except (ijson.JSONError, UnicodeDecodeError) as error:
        # The parser's other lines show a piece of the file.
        why = str(error).partition("\n")[0].strip().rstrip(".")
        is_cut = isinstance(error, ijson.IncompleteJSONError) and "premature EOF" in why
        text = "the file is cut off" if is_cut else f"not valid JSON in UTF-8: {why}"
        raise InputError(f"{file.place}: after record {count}: {text}; export or copy it again") from error


class _Shallow:
    """A stream that refuses what is nested too deeply."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.num_open = 0
        self._stream = stream

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self.num_open += piece.count(b"[") + piece.count(b"{") - piece.count(b"]") - piece.count(b"}")
        if self.num_open > MOST_OPEN:
            raise ijson.JSONError("nested too deeply")
        return piece


def head_of(file: AnswerFile) -> bytes:
    """The first bytes of a file."""
    with file.open() as stream:
        return stream.read(HEAD_BYTES)


def start_of(head: bytes) -> bytes:
    """The first bytes of a file without the mark of UTF-8 and space."""
    return head.removeprefix(_BOM).lstrip()


def is_json(path: str, head: bytes) -> bool:
    """Whether a file of this name and these first bytes may be JSON objects."""
    return path.lower().endswith((".json", ".jsonl", ".ndjson")) and start_of(head).startswith((b"[", b"{"))


def moment(value: Any) -> datetime | None:
    """A time as `moment_of`; None for a blank one."""
    return None if is_blank(value) else moment_of(value, "the time")


def seconds(value: Any) -> float | None:
    """A length of time in seconds; None for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and value >= 0 else None


def pixels(value: Any) -> float:
    """A length in pixels. Raises TypeError or ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no length in pixels")
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is no length in pixels")
    return value


def one_of(found: Sequence[str]) -> str:
    """The only class found. Raises InputError if there is none, or more than one."""
    if len(found) != 1:
        raise InputError(f"the classes {', '.join(map(repr, found))}, not one" if found else "no class")
    return found[0]


def compact(value: Any) -> str:
    """A value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_file(value: Any) -> bytes:
    """A value as an indented JSON file."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def json_list(values: Iterable[Any]) -> bytes:
    """Values as a JSON list, one a line."""
    return ("[\n" + ",\n".join(map(compact, values)) + "\n]\n").encode()


def json_lines(values: Iterable[Any]) -> bytes:
    """Values as JSON lines."""
    content = io.BytesIO()
    content.writelines(f"{compact(value)}\n".encode() for value in values)
    return content.getvalue()


def in_files(name: str, rows: Sequence[T], most: int) -> Iterator[tuple[str, Sequence[T]]]:
    """The rows under the name of their file, NAME.SUFFIX, or NAME-001.SUFFIX and so on for more than `most`."""
    if len(rows) <= most:
        yield name, rows
        return
    stem, _, suffix = name.rpartition(".")
    for number, start in enumerate(range(0, len(rows), most), 1):
        yield f"{stem}-{number:03}.{suffix}", rows[start : start + most]


def require_classes(batch: Outgoing, vendor: str) -> None:
    """Raises ConfigError if the question names no classes, or a prelabel is none of them."""
    if not batch.question.classes:
        raise ConfigError(f"handoff.question.classes is empty, and {vendor} needs the classes; name them")
    known = {"", *batch.question.classes}
    if unknown := next((task.prelabel for task in batch.tasks if task.prelabel not in known), ""):
        raise ConfigError(f"handoff.question.classes lacks {unknown!r}, which a network guesses; add it")
