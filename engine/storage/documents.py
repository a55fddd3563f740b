"""Reads the JSON files of a campaign's state: a value of the expected type, or one clear error."""

import json
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from engine.config.texts import explain
from engine.errors import ConfigError, InputError, one_line
from engine.storage.location import Location

T = TypeVar("T")


def _with_zone(text: str) -> str:
    try:
        has_zone = datetime.fromisoformat(text).tzinfo
    except ValueError:
        has_zone = None
    if not has_zone:
        raise PydanticCustomError("moment", "Input should be an ISO 8601 time with its zone")
    return text


Moment = Annotated[str, AfterValidator(_with_zone)]
"""A time as text, ISO 8601 with its zone."""
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read_document(file: Location, kind: type[T], advice: str = "restore it from a copy") -> T:
    """A JSON file as a value of `kind`; fields that it does not name are kept. Errors end with the advice.

    Raises:
        InputError: the file is missing, cut off, or not UTF-8.
        ConfigError: a field is missing, or is not of its type.
    """
    content = file.read_bytes()
    try:
        json.loads(content)
    except ValueError as error:
        raise InputError(f"{file}: damaged, not valid JSON: {one_line(error)}; {advice}") from error
    try:
        value: T = _adapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, [])}; {advice}, or use the version that wrote it") from error
    return value
