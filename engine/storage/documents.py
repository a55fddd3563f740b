"""Reads the JSON files of a campaign's state: a value of the expected type, or one clear error."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from engine.config.texts import explain
from engine.errors import ConfigError, InputError, one_line
from engine.storage.location import Location

T = TypeVar("T")
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read_document(file: Location, kind: type[T]) -> T:
    """A JSON file as a value of `kind`; fields that it does not name are kept.

    Raises:
        InputError: the file is missing, cut off, or not UTF-8.
        ConfigError: a field is missing, or is not of its type.
    """
    content = file.read_bytes()
    try:
        json.loads(content)
    except ValueError as error:
        raise InputError(f"{file}: damaged, not valid JSON: {one_line(error)}; restore it from a copy") from error
    try:
        value: T = _adapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, [])}; restore it, or use the version that wrote it") from error
    return value
