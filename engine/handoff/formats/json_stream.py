"""JSON of any length, one value at a time, and JSON as it is written for vendors."""

import json
from collections.abc import Iterator
from typing import IO, Any

import ijson

from engine.errors import InputError, one_line
from engine.handoff.exchange import AnswerFile

MOST_OPEN = 2000
"""So many more brackets may open than close within one piece that is read. The parser's memory grows with the square of
the depth, so a file that only opens brackets would take all of it."""
_BOM = b"\xef\xbb\xbf"


def read_items(file: AnswerFile, prefix: str) -> Iterator[Any]:
    """The values at a prefix of ijson: "" is the whole document, "item" each of a list, "images.item" each of a list in
    an object. None where there is nothing of that name: `opening` says what the document is.

    Raises InputError: the file is truncated, no JSON, or not UTF-8.
    """
    skipped = len(_BOM) if _head(file).startswith(_BOM) else 0
    with file.open() as stream:
        stream.read(skipped)
        try:
            yield from ijson.items(_Shallow(stream), prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
            why = one_line(error).split(" (right here)")[0][:120]
            raise InputError(f"{file.place}: not complete JSON in UTF-8 ({why}); export it again") from error


def opening(file: AnswerFile) -> str:
    """The document's first character: "[" for a list, "{" for an object, "" for a file without any."""
    return _head(file).removeprefix(_BOM).lstrip()[:1].decode("latin-1")


def compact(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def document(value: Any) -> bytes:
    """A value as a file that people may read."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def lines(values: Iterator[Any]) -> bytes:
    """JSON lines."""
    return "".join(f"{compact(value)}\n" for value in values).encode()


def _head(file: AnswerFile) -> bytes:
    with file.open() as stream:
        return stream.read(1 << 12)


class _Shallow:
    """A stream that refuses what is nested too deeply."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def read(self, size: int = -1) -> bytes:
        piece = self.stream.read(size)
        if piece.count(b"[") + piece.count(b"{") - piece.count(b"]") - piece.count(b"}") > MOST_OPEN:
            raise ijson.JSONError("nested too deeply")
        return piece
