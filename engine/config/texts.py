"""Options as text: settings, permitted values, and errors."""

import difflib
import json
import re
import shlex
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from engine.errors import ConfigError, one_line

GROUP_COLUMN = "column:"
"""pool.group begins with it where it names a column of pool.metadata."""


def fault_of_group(group: str, metadata: str) -> str:
    """Why pool.group cannot be read beside this pool.metadata; empty where it can."""
    if group.startswith(GROUP_COLUMN):
        has_column = group != GROUP_COLUMN and metadata
        return "" if has_column else " needs pool.metadata, the file with that column"
    try:
        re.compile(group)
    except (re.error, RecursionError, OverflowError) as error:
        return f": not a regular expression: {one_line(error)}; correct it"
    return ""


PICKLES = frozenset({".pt", ".pt2", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".onnx"})
"""Suffixes of files of networks that are not read: all but the last may run code of whoever wrote them."""


ARGUMENTS = "--set '{}={{name = \"resnet50\", num_classes = 10}}'"
"""An example of a table of a factory's arguments on the command line, for the key of its option."""


def fault_of_network(section: str, model: str, weights: Iterable[str]) -> str:
    """Why a network cannot be had by these options of a section; empty where it can."""
    if model and not model.partition(":")[2]:
        return f"{section}.model={model}: give package.module:factory"
    for file in weights:
        if PurePosixPath(file.partition("?")[0]).suffix.lower() in PICKLES:
            fix = "write it once: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
            return f"{section}.weights={file}: only safetensors are read, no file can then run code; {fix}"
    return ""


_FAULTS = {
    "int_type": "not a whole number",
    "int_parsing": "not a whole number",
    "int_from_float": "not a whole number",
    "float_type": "not a number",
    "float_parsing": "not a number",
    "finite_number": "not a finite number",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "string_type": "not a text",
    "list_type": "not a list",
    "too_short": "too few; give at least {min_length}",
    "too_long": "too many; give at most {max_length}",
    "string_pattern_mismatch": "must match {pattern}",
    "dict_type": "not a table",
    "model_type": "not a table",
    "literal_error": "give {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}
"""Faults by their types in pydantic, for a person."""
_IN_A_LIST = {
    "string_type": "in a list, put each text in quotes",
    "list_type": "in a list of lists, put each list in brackets",
}
_OF_NUMBERS = frozenset(name for name in _FAULTS if name.startswith(("int_", "float_", "finite_", "less_", "greater_")))
_MEMBER = re.compile(r"constrained-\w+|literal\[.*\]|list\[.*\]")
"""How pydantic names the members of a union, where a key of a table could be."""


def explain(error: ValidationError, known: list[str], numbers: Mapping[str, list[Any]] | None = None) -> str:
    """All errors of a validation in one line, each with its key; `known` are keys to suggest for an unknown one, and
    `numbers` those of lists of numbers, each with an example."""
    examples = numbers or {}
    faults: dict[str, str] = {}
    forms: dict[str, str] = {}
    for key, fault in _that_count([(_key_of(fault["loc"], known), fault) for fault in error.errors()], examples):
        message = f"{_in_words(fault)}{_nearest_value(fault)}"
        if fault["type"] == "extra_forbidden":
            faults[key] = unknown_key(key, known)
        elif fault["type"] == "missing":
            faults[key] = f"{key}: missing"
        elif fault["type"] == "value_error":
            faults[key] = message.removeprefix("value error, ")
        elif key not in faults:
            faults[key] = f"{key}={fault['input']!r}: {message}" if key else message
        elif message not in faults[key]:
            faults[key] += f", or {message}"
        if key.endswith(".arguments"):
            faults[key] = f"{key}={_given(fault)}: not a table of texts and numbers"
        forms |= _form_of(key, fault, examples.get(key, []))
    return "; ".join(f"{text}; give {forms[key]}" if key in forms else text for key, text in faults.items())


def _key_of(place: tuple[int | str, ...], known: list[str]) -> str:
    """The key of an option by the place of its fault. A union appends the names of its members to the key; a table has
    keys of its own. Where no keys are known, the whole place, as in a[0].b."""
    if not known:
        steps = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
        return "".join(steps).removeprefix(".")
    if len(place) > 1 and _MEMBER.fullmatch(str(place[1])):
        return str(place[0])
    key = ".".join(str(part) for part in place[:2])
    return ".".join(str(part) for part in place[:3]) if any(name.startswith(f"{key}.") for name in known) else key


def _that_count(found: list[tuple[str, Any]], numbers: Container[str]) -> Iterator[tuple[str, Any]]:
    """Each key with its faults. Where an option is a number, a text or a list, the faults of the member that the value
    is not meant for are left out."""
    for key, fault in found:
        others = {other["type"] for name, other in found if name == key and other is not fault}
        value = fault["input"]
        if fault["type"] == "list_type" and others & _OF_NUMBERS and not _is_list(value, is_number=key in numbers):
            continue
        if fault["type"] in {*_OF_NUMBERS, "string_type"} and others and isinstance(value, list):
            continue
        yield key, fault


def _is_list(value: Any, *, is_number: bool) -> bool:
    """Whether a value that is no list was meant as one."""
    return isinstance(value, str) and (not is_number or bool(_numbers_in(value)))


def _is_inner(fault: Mapping[str, Any]) -> bool:
    """Whether it is a value in a list that is wrong."""
    return any(isinstance(part, int) for part in fault["loc"][-1:])


def _in_words(fault: Mapping[str, Any]) -> str:
    if words := (_IN_A_LIST if _is_inner(fault) else {}).get(fault["type"]) or _FAULTS.get(fault["type"]):
        return words.format(**fault.get("ctx", {}))
    return f"{fault['msg'][0].lower()}{fault['msg'][1:]}"


def _form_of(key: str, fault: Mapping[str, Any], example: list[Any]) -> dict[str, str]:
    """By the key how its option is given on the command line, where it is a list or a table."""
    if key.endswith(".arguments"):
        return {key: ARGUMENTS.format(key)}
    value = fault["input"]
    if fault["type"] == "list_type" and isinstance(value, str | int | float) and not _is_inner(fault):
        return {key: list_setting(key, _values_in(str(value), example))}
    return {}


def _given(fault: Mapping[str, Any]) -> str:
    """The value that has a fault, with its own key where it is in a table."""
    inner = fault["loc"][2:3]
    return f"{fault['input']!r}" if not inner else f"{{{inner[0]} = {fault['input']!r}}}"


def _nearest_value(fault: Mapping[str, Any]) -> str:
    """The most similar of the values that an option may have, as the end of the error; empty for other errors."""
    known = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
    return did_you_mean(str(fault["input"]), known) if fault["type"] == "literal_error" else ""


def _values_in(text: str, example: list[Any]) -> list[Any]:
    """The values of a list that was written as plain text, with commas."""
    return (_numbers_in(text) or example) if example else parts_of(text)


def parts_of(text: str) -> list[str]:
    """The texts of a list that was written without quotes: [a, b]."""
    return [part for one in text.strip("[]").split(",") if (part := one.strip(" '\""))]


def _numbers_in(text: str) -> list[int | float]:
    """The numbers of such a list; none where a value is no number."""
    with suppress(ValueError):
        return [int(part) if part.lstrip("+-").isdecimal() else float(part) for part in parts_of(text)]
    return []


def plural(number: int, word: str) -> str:
    """A number with its word: "1 shard", "1,000 shards", "2 batches"."""
    ending = "" if number == 1 else "es" if word.endswith(("s", "ch", "x")) else "s"
    return f"{number:,} {word}{ending}"


def some(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - most:,} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The error for an option that does not exist, with the most similar one that does."""
    return f"{key}: unknown key{did_you_mean(key, known)}"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The most similar of the known names, as the end of an error; empty where none is like it."""
    close = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def list_setting(key: str, values: Iterable[Any]) -> str:
    """The words of the command line that give an option of list kind these values."""
    # The strings of JSON are strings of TOML.
    text = json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))
    return f"--set {shlex.quote(f'{key}={text}')}"


def describe_range(field: FieldInfo) -> str:
    """The permitted values of an option as text, empty if only its type restricts them."""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(field.annotation))
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    metadata = [*field.metadata, *(m for part in get_args(field.annotation) for m in getattr(part, "__metadata__", ()))]
    flat = [inner for m in metadata for inner in getattr(m, "metadata", None) or [m]]
    bounds = [f"{sign} {getattr(m, name)}" for m in flat for name, sign in signs.items() if hasattr(m, name)]
    return " and ".join(bounds)


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`["train.epochs=3"]` to `{"train.epochs": 3}`. A value is TOML; one that is not valid TOML is a plain string."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {setting}: give it a value: --set {key or 'KEY'}=VALUE")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            values[key.strip()] = text.strip()
    return values


def score_text(value: float, digits: int = 3) -> str:
    """A score for a person, with so many significant digits: scores may be of any size."""
    text = f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}".removesuffix(".")
    return text.replace("-", "−")
