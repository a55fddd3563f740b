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
        cell = _parts(class_name(cell), known, where)
    labels = {class_of(name, where) for name in (cell if isinstance(cell, list) else [cell])}
    if "" in labels:
        raise InputError(f"{where} has an empty class; take it out")
    return sorted(labels)


def _parts(text: str, known: Container[str], where: str) -> list[Any]:
    """What a text lists. The JSON of a list is that list, also where a class has this name: `[]` is no class."""
    try:
        return list_of(text, where)
    except InputError:
        # A class may have | or [ in it.
        if text in known:
            return [text]
        if text.startswith("["):
            raise
        return text.split("|")


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
