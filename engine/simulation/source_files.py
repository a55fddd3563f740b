"""The files that an experiment names: found, or an error that says which key named them and how to get them."""

import os
import re

import pyarrow as pa
import pyarrow.parquet as pq

from engine.config.texts import some
from engine.datasets import DATA_SETS
from engine.errors import InputError
from engine.storage.globs import matches_of
from engine.storage.location import Location

_OF_DATA_SET = re.compile(r"\$\{VAAL_SETS\}/(\w+)/(?:(?:train|val|test)-|groups\.json)")
"""A path of a file that `vaal dataset` makes, as an experiment gives it."""


def expand(path: str, key: str) -> str:
    """The path of a key with ${NAME} replaced by the environment's variables. Raises InputError for one that is not
    set."""

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:
            state = "not set" if value is None else "empty"
            fix = f"export {match[1]}=FOLDER; {_source_of(path)}"
            raise InputError(f"{key}={path}: the environment variable {match[1]} is {state}; {fix}")
        return value

    return re.sub(r"\$\{(\w+)\}", value_of, path)


def places_of(path: str, key: str) -> list[Location]:
    """The files of a key: a path, a glob or a brace range. Raises InputError where no file is there."""
    import braceexpand

    place, what = expand(path, key), "shard" if key.endswith("shards") else "file"
    try:
        plain = list(braceexpand.braceexpand(place))
    except ValueError:
        # The reader of shards explains a brace without its partner; other files may have one in their names.
        plain = [place]
    found = [match for text in plain for match in matches_of(Location.of(text))]
    if not found:
        raise InputError(f"{key}={place}: no {what} matches; {_source_of(path)}")
    if not found[0].exists():
        raise InputError(f"{key}={place}: no such {what}; {_source_of(path)}")
    return found


def place_of(path: str, key: str) -> Location:
    """The one file of a key. Raises InputError where there is none, or more."""
    location, *others = places_of(path, key)
    if others:
        raise InputError(f"{key}={path}: {len(others) + 1} files match; give one file")
    return location


def _source_of(path: str) -> str:
    """How to get the files of a path, as the experiment gives it."""
    match = _OF_DATA_SET.match(path)
    if match and match[1] in DATA_SETS:
        return f"vaal dataset {match[1]} SOURCE $VAAL_SETS/{match[1]} makes it"
    if "${VAAL_DATA}" in path:
        return "docs/simulation.md says what $VAAL_DATA holds"
    return "correct the path"


def table_of(content: bytes, columns: tuple[str, ...], location: Location) -> pa.Table:
    """These columns of a Parquet file, of which shard and key become texts. Raises InputError for other content."""
    wanted = ", ".join(columns)
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            there = file.schema_arrow.names
            table = file.read(list(columns)) if {*columns} <= {*there} else None
    except (ValueError, OSError, pa.ArrowException) as error:
        raise InputError(f"{location}: not a Parquet table, or cut off; give one with the columns {wanted}") from error
    if table is None:
        lacking = ", ".join(name for name in columns if name not in there)
        why = f"has no {lacking}; its columns are {some(there, 8) or 'none'}"
        raise InputError(f"{location}: {why}; give a table with {wanted}")
    for place, name in enumerate(("shard", "key")):
        try:
            table = table.set_column(place, name, table[name].cast(pa.string()))
        except pa.ArrowException as error:
            raise InputError(f"{location}: the column {name} is of {table[name].type}; give texts") from error
    return table
