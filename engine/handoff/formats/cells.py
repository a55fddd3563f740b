"""What the cells of a table of answers say, and the answers' files as rows."""

import csv
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from engine.errors import InputError
from engine.handoff.exchange import AnswerFile, Question, Shape, Value
from engine.tables.class_lists import classes_in, list_of, shown
from engine.tables.row_stream import FORMS, Row, stream_rows
from engine.tables.values import class_of, is_blank, is_no_label, moment_of, plain, text_of

_MOST_PIXELS = 1e9
_SHAPES = ("box", "polygon", "mask")


def rows_of(file: AnswerFile, form: str, needed: Sequence[tuple[str, ...]] = ()) -> Iterator[tuple[int, Row]]:
    """The rows of a file as `stream_rows`. Raises InputError if there are none too."""
    is_empty = True
    with file.open() as stream:
        for numbered in stream_rows(stream, file.place, form, needed):
            is_empty = False
            yield numbered
    if is_empty:
        raise InputError(f"{file.place}: no rows; give the file that the vendor filled in")


def form_of(path: str) -> str | None:
    """The form of a table, a value of FORMS, by its suffix; None for another file."""
    return FORMS.get(path.rpartition(".")[2].lower())


def columns_of(path: str, head: bytes) -> set[str]:
    """The columns of a CSV, TSV or JSON-lines file by its first bytes; those of the first row of JSON lines. Empty for
    another file."""
    form, head = form_of(path), head.removeprefix(b"\xef\xbb\xbf")
    # Excel's own line may come first.
    line = re.sub(rb"\Asep=.\r?\n", b"", head).partition(b"\n")[0]
    try:
        if form in ("csv", "tsv"):
            return set(next(csv.reader([line.decode()], delimiter="," if form == "csv" else "\t"), ()))
        row = json.loads(line) if form == "jsonl" else None
    except (ValueError, RecursionError, csv.Error):
        return set()
    return set(row) if isinstance(row, dict) else set()


def value_of(cell: Any, question: Question) -> tuple[Value | None, str]:
    """A cell as the value of an answer, None if it is blank, and its shapes as compact JSON.

    Several classes are a list, its JSON, or a text with | between them. Shapes are a list or its JSON; a mask may be
    the name of a PNG file alone, which says nothing of classes if the question has several: label is then empty.

    Raises InputError, whose text begins with "label", for anything else.
    """
    if is_blank(cell) or (isinstance(cell, str) and is_no_label(cell, question.classes)):
        return None, ""
    if question.task == "class":
        return class_of(cell, "label"), ""
    if question.task == "classes":
        return classes_in(cell, question.classes), ""
    if isinstance(cell, str) and question.task == "mask" and not cell.strip().startswith("["):
        label = question.classes[0] if len(question.classes) == 1 else ""
        return [{"label": label, "mask": _png(cell.strip())}], ""
    given = list_of(cell) if isinstance(cell, str) else cell
    if not isinstance(given, list):
        raise InputError(f"label is {shown(given)}, and not a list of shapes; give a JSON list")
    raw = json.dumps(given, separators=(",", ":"), default=str)
    return [_shape(shape, f"label: shape {number}") for number, shape in enumerate(given, 1)], raw


def moment_or_none(cell: Any, where: str) -> datetime | None:
    """A cell as a time; None if it is blank. Raises InputError as `moment_of`."""
    return None if is_blank(cell) else moment_of(cell, where)


def seconds_of(cell: Any, where: str) -> float | None:
    """A cell as a duration; None if it is blank. Raises InputError for what is no number from 0."""
    if is_blank(cell):
        return None
    try:
        seconds = float(text_of(cell, where))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"{where} is {shown(cell)}, and not a number from 0; write seconds")
    return seconds


def flag_of(cell: Any, where: str) -> bool:
    """A cell as true or false; blank is false. Raises InputError for anything else."""
    if cell is None:
        return False
    text = plain(text_of(cell, where)).lower()
    if text not in ("", "true", "false", "1", "0", "yes", "no"):
        raise InputError(f"{where} is {shown(cell)}; write true or false")
    return text in ("true", "1", "yes")


def stem_of(path: str) -> str:
    """The name of a file up to its first dot."""
    return path.replace("\\", "/").rpartition("/")[2].partition(".")[0]


def _shape(given: Any, where: str) -> Shape:
    """Raises InputError for what is no shape."""
    if not isinstance(given, dict):
        raise InputError(f"{where} is {shown(given)}, and not an object; give label and box, polygon or mask")
    kinds = [kind for kind in _SHAPES if given.get(kind) is not None]
    label = class_of(given.get("label"), f"{where}: label")
    if len(kinds) != 1 or not label:
        raise InputError(f"{where} has {', '.join(given) or 'nothing'}; give label and one of {', '.join(_SHAPES)}")
    kind, form = kinds[0], given[kinds[0]]
    if kind == "box" and not (_are_numbers(form, 4) and form[2] > 0 and form[3] > 0):
        raise InputError(f"{where}: box is {shown(form)}; give [left, top, width, height] in pixels")
    if kind == "polygon" and not (
        isinstance(form, list) and len(form) >= 3 and all(_are_numbers(point, 2) for point in form)
    ):
        raise InputError(f"{where}: polygon is {shown(form)}; give three or more points [x, y] in pixels")
    if kind == "mask" and isinstance(form, str):
        form = _png(form)
    return {"label": label, kind: form}


def _are_numbers(given: Any, length: int) -> bool:
    return (
        isinstance(given, list)
        and len(given) == length
        and all(type(number) in (int, float) and -_MOST_PIXELS <= number <= _MOST_PIXELS for number in given)
    )


def _png(name: str) -> str:
    """The path of a mask, below the folder of the file that names it. Raises InputError if it leads elsewhere."""
    is_below = (
        not name.startswith("/") and ".." not in name.split("/") and not re.search(r"[\\:\x00-\x1f\ud800-\udfff]", name)
    )
    if not (is_below and name.lower().endswith(".png")):
        raise InputError(f"label: mask is {shown(name)}; give the name of a PNG file beside the answers")
    return posixpath.normpath(name)
