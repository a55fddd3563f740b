"""A row of Toloka's assignments: what one person says of one task."""

import re

from engine.errors import InputError
from engine.handoff.exchange import Answer, Question
from engine.handoff.formats.cells import moment_or_none, value_of
from engine.tables.harmless import restored
from engine.tables.row_stream import Row
from engine.tables.values import text_of

_ANSWERED = ("", "SUBMITTED", "APPROVED")
_WITHOUT_ANSWER = ("ACTIVE", "EXPIRED")
_REFUSED = ("SKIPPED", "REJECTED")


def answer_of(where: str, row: Row, output: str, question: Question) -> Answer:
    """The answer of an assignment. `output` is the column that has it."""
    item = ""
    try:
        cells = {name: text_of(cell, name) for name, cell in row.items() if cell}
        item = cells.get("INPUT:item_id") or re.split("[?#]", cells.get("INPUT:image", ""))[0]
        status = cells.get("ASSIGNMENT:status", "")
        value, raw = value_of(_listed(cells.get(output, ""), question), question) if status in _ANSWERED else (None, "")
        started, ended = (moment_or_none(cells.get(f"ASSIGNMENT:{name}"), name) for name in ("started", "submitted"))
    except InputError as error:
        return Answer(where, item, None, fault=str(error))
    fault = "" if item else "no INPUT:item_id and no INPUT:image; take the row out"
    if status not in (*_ANSWERED, *_WITHOUT_ANSWER, *_REFUSED):
        fault = f"ASSIGNMENT:status is {status!r}; give one of Toloka's"
    return Answer(
        where,
        item,
        value,
        annotator=cells.get("ASSIGNMENT:worker_id", ""),
        answer_id="/".join(filter(None, (cells.get(f"ASSIGNMENT:{name}_id") for name in ("assignment", "task")))),
        answered_at=ended,
        seconds=(ended - started).total_seconds() if started and ended and ended >= started else None,
        skipped=status in _REFUSED,
        reason=status.lower() if status in _REFUSED else "",
        fault=fault,
        raw=raw,
    )


def _listed(text: str, question: Question) -> str | list[str]:
    """An answer as it was given. Toloka has commas between the texts of an array, and \\, for one in a text."""
    text = restored(text)
    if question.task != "classes" or text in question.classes or text.startswith("[") or "|" in text:
        return text
    return [part.replace("\\,", ",") for part in re.split(r"(?<!\\),", text)] if text else ""
