"""What a cell of a user's table says: the same for CSV, JSON lines and Parquet."""

import math
import posixpath
import re
import unicodedata
from collections.abc import Container, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from engine.config.class_names import class_name as class_name
from engine.errors import InputError

MILLISECONDS_FROM = 1e11
"""Epochs from here on are in milliseconds; as seconds they would be after the year 5000."""
_BLANK_WORDS = ("nan", "null", "n/a", "#n/a", "<na>")
_MOST_SHOWN = 60
"""Characters of a wrong value in an error."""


class ClassNumber(str):
    """A class that is only given by its place, from 0, among those that were asked for: "#0"."""


def is_blank(value: Any) -> bool:
    """Whether a cell is missing, null, NaN or without a character. Zero and false are values."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def text_of(value: Any, where: str) -> str:
    """A cell as the name of something: "true" or "false", an integral number without a point, text without space
    around it. Text is kept as it is: `class_of` is the reading of labels.

    Blank is "". Raises InputError, with `where` in front, for what is not one value, or not Unicode text.
    """
    if value is None:
        return ""
    if type(value) is str and value.isascii():
        # Most cells, of which there are nine in a row of answers.
        return value.strip()
    if is_blank(value):
        return ""
    if isinstance(value, str):
        # Half of a pair of surrogates, or a byte of an argument that is not UTF-8.
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise InputError(f"{where} is {value[:_MOST_SHOWN]!r}, which is not Unicode text; write it in UTF-8")
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (float, Decimal)) and math.isfinite(value):
        return str(int(value)) if value == int(value) else str(value)
    if isinstance(value, (list, tuple, dict)):
        raise InputError(f"{where} is several values, {value!r}; give one")
    raise InputError(f"{where} is {value!r}, which is not text, a number, true or false; write it as text")


def plain(text: str) -> str:
    """What text says, where a format without types wrote it: `class_name`, and NaN is blank."""
    name = class_name(text)
    return "" if name.lower() == "nan" else name


def is_no_label(text: str, known: Container[str] = ()) -> bool:
    """Whether a text is blank, or a word by which programs say that there is nothing, and no class that is `known`."""
    name = class_name(text)
    return not name or ((name.lower() in _BLANK_WORDS or name == "None") and name not in known)


def class_of(value: Any, where: str) -> str:
    """A value as the name of a class: `class_name`, on one line; a ClassNumber as it is. Blank is "". Raises InputError
    as `text_of`."""
    if isinstance(value, ClassNumber):
        return value
    label = class_name(text_of(value, where))
    if not label.isprintable() and any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in label):
        why = f"{where} is {label[:_MOST_SHOWN]!r}, with a line break or another control character"
        raise InputError(f"{why}; take it out, or close the quotation mark before it")
    return label


def moment_of(value: Any, where: str) -> datetime:
    """A cell as a time: ISO 8601 text, a date, a timestamp, or seconds or milliseconds since 1970. Blank is now.

    Raises InputError, with `where` in front, for anything else.
    """
    if is_blank(value):
        return datetime.now(UTC)
    if isinstance(value, str):
        value = value.strip()
        # Eight digits are a date, 20260131.
        value = float(value) if re.fullmatch(r"\d{9,}(\.\d+)?", value) else value
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value >= MILLISECONDS_FROM else value, UTC)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time())
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise InputError(
        f"{where} {value!r} is not an ISO 8601 time; write it like 2026-01-31T12:00:00Z, or in seconds since 1970"
    )


def skeleton(name: str, suffixes: Sequence[str] = ()) -> str:
    """What is left of a name when it is written in other ways: case, Unicode form, ./, leading zeros, a suffix."""
    plain = posixpath.normpath(unicodedata.normalize("NFC", name)).casefold()
    for suffix in suffixes:
        plain = plain.removesuffix(f".{suffix.casefold()}")
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain)
