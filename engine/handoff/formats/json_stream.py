"""Vendors' JSON of any length, one value at a time."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import ijson

from engine.errors import InputError, one_line
from engine.handoff.exchange import Answer, AnswerFile

Record = dict[str, Any]
HEAD_BYTES = 65_536
MOST_OPEN = 2000
"""So many brackets may be open. The parser's memory grows with the square of the depth, so that a file that only opens
brackets would take all of it."""
_BOM = b"\xef\xbb\xbf"
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_PAGE = re.compile(rb'\{[^\[{]*"docs"\s*:\s*\[')
"""How a page begins, as an API lists things: beside the list there are only numbers and texts."""
_FOREIGN = (AttributeError, IndexError, InputError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError)
"""What reading raises where a record has another form than the vendor's."""


def read_records(
    file: AnswerFile, refusal: Callable[[Record], str], answers: Callable[[str, Record], Iterable[Answer]]
) -> Iterator[Answer]:
    """The answers of a file of records, as `read_values` reads it. Holds one record at a time.

    Args:
        refusal: why a record shows that the file is not what can be read, with the fix; empty if it is.
        answers: the answers of a record, given its place. An error in it is the fault of that record.

    Raises InputError as `read_values`, and if a record is no object, or refused.
    """
    for number, record in enumerate(read_values(file), 1):
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


def read_values(file: AnswerFile) -> Iterator[Any]:
    """The values of a JSON list, of one object, or of an object a line, and of the list `docs` in pages of a list.
    Raises InputError as `read_items`."""
    is_list = opening(file) == "["
    of_object = "docs.item" if _PAGE.match(start_of(head_of(file))) else ""
    return read_items(file, "item" if is_list else of_object, is_many=not is_list)


def read_items(file: AnswerFile, prefix: str, *, is_many: bool = False) -> Iterator[Any]:
    """The values at a prefix of ijson: "" is the whole document, "item" each of a list, "images.item" each of a list in
    an object. None where there is nothing of that name. `is_many`: a document may follow the first.

    Raises InputError if the file is empty, cut off, nested too deeply, or not JSON in UTF-8.
    """
    opening(file)
    skipped, count = len(_BOM) if head_of(file).startswith(_BOM) else 0, 0
    try:
        with file.open() as stream:
            stream.read(skipped)
            for value in ijson.items(_Shallow(stream), prefix, multiple_values=is_many, use_float=True):
                count += 1
                yield value
    except (ijson.JSONError, UnicodeDecodeError) as error:
        # The parser's other lines show a piece of the file.
        why = str(error).partition("\n")[0].strip().rstrip(".")
        is_cut = isinstance(error, ijson.IncompleteJSONError) and "premature EOF" in why
        text = "the file is cut off" if is_cut else f"not valid JSON in UTF-8: {why}"
        raise InputError(f"{file.place}: after record {count}: {text}; export or copy it again") from error


def opening(file: AnswerFile) -> str:
    """The document's first character: "[" of a list, "{" of an object. Raises InputError for another file."""
    head = head_of(file)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{file.place}: in UTF-16; save it in UTF-8")
    start = start_of(head)
    if not start:
        raise InputError(f"{file.place}: empty; export it again")
    if start[:1] not in b"[{":
        raise InputError(f"{file.place}: not JSON, it begins with {start[:20]!r}; export JSON")
    return start[:1].decode()


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


class _Shallow:
    """A stream that refuses what is nested too deeply. Brackets in texts do not count."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._num_open, self._text = stream, 0, b""

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        bare, quote, text = _TEXT.sub(b"", self._text + piece).partition(b'"')
        # A text goes on in the next piece, perhaps in the middle of an escape.
        self._text = quote + b"\\" * ((len(text) - len(text.rstrip(b"\\"))) % 2)
        self._num_open += bare.count(b"[") + bare.count(b"{") - bare.count(b"]") - bare.count(b"}")
        if self._num_open > MOST_OPEN:
            raise ijson.JSONError("nested too deeply")
        return piece
