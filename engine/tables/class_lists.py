"""Several classes in a cell of a user's table: a list, its JSON, or a text with | between them."""

import json
from collections.abc import Container
from typing import Any

from engine.config.class_names import class_name
from engine.errors import InputError
from engine.tables.values import class_of

_MOST_SHOWN = 60
"""Characters of a wrong value in an error."""


def classes_in(cell: Any, known: Container[str], where: str = "label") -> list[str]:
    """The classes in a cell that is not blank, sorted; none in an empty list.

    Raises InputError, with `where` in front, for a class without a name, or what cannot be one.
    """
    if isinstance(cell, str):
        text = class_name(cell)
        # A class may have | or [ in it.
        cell = [text] if text in known else list_of(text, where) if text.startswith("[") else text.split("|")
    labels = {class_of(name, where) for name in (cell if isinstance(cell, list) else [cell])}
    if "" in labels:
        raise InputError(f"{where} has an empty class; take it out")
    return sorted(labels)


def list_of(text: str, where: str = "label") -> list[Any]:
    """The list that a text is the JSON of. Raises InputError, with `where` in front, for another text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise InputError(f"{where} is {shown(text)}, and not a JSON list; correct it")
    return found


def shown(value: Any) -> str:
    """A value in an error."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
