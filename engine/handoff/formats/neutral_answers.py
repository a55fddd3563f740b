"""A row of answers in the neutral form: see `AnswerRecord`."""

import re

from engine.errors import InputError
from engine.handoff.exchange import Answer, Question
from engine.handoff.formats.cells import flag_of, moment_or_none, seconds_of, stem_of, value_of
from engine.tables.row_stream import Row
from engine.tables.values import is_blank, text_of

_ITEM_ID = re.compile("[0-9a-f]{32}")
_SKIPPED = re.compile("skip|cancel|reject|discard|unlabell?able|cannot|invalid|corrupt|broken|ignore", re.IGNORECASE)
"""What a status says of an image that has no label and gets none."""


def answer_of(where: str, row: Row, question: Question) -> Answer:
    """The answer in a row of CSV, JSON lines or Parquet. A row that cannot be read is a fault."""
    item = ""
    try:
        item = _item(row)
        value, raw = value_of(row.get("label"), question)
        texts = {name: text_of(row.get(name), name) for name in ("annotator", "answer_id", "reason")}
        status = text_of(row.get("status"), "status")
        time = "answered_at" if is_blank(row.get("labelled_at")) else "labelled_at"
        moment = moment_or_none(row.get(time), time)
        seconds, skipped = seconds_of(row.get("seconds"), "seconds"), flag_of(row.get("skipped"), "skipped")
    except InputError as error:
        return Answer(where, item, None, fault=str(error))
    if value is None and _SKIPPED.search(status):
        skipped, texts["reason"] = True, texts["reason"] or status
    if skipped and value is not None:
        return Answer(where, item, None, fault=f"skipped, but label is {row['label']!r}; leave one of them empty")
    who, answer_id, reason = texts.values()
    return Answer(where, item, value, who, answer_id, moment, seconds, skipped, reason, raw=raw)


def _item(row: Row) -> str:
    """What names the image. Raises InputError if nothing does, or two columns name two images."""
    item, path = text_of(row.get("item_id"), "item_id"), text_of(row.get("file"), "file")
    if not item and not path:
        raise InputError("no 'item_id' and no 'file'; every row needs one of them")
    # Columns that were sorted without each other.
    named = {stem_of(name).strip().lower() for name in (item, path)} if item and path else set[str]()
    if len(named) == 2 and all(map(_ITEM_ID.fullmatch, named)):
        raise InputError(f"item_id {item!r} and file {path!r} are two images; correct one of them")
    return item or path
