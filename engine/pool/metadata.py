"""Metadata of shards: columns to stratify and to group by, copied into the campaign at init."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.config.conditions import Condition, Leaf, columns_in, condition_of, value_of
from engine.config.texts import GROUP_COLUMN, did_you_mean
from engine.errors import ConfigError, InputError
from engine.pool.identity import Groups
from engine.storage.location import Location
from engine.tables.rows import read_rows
from engine.tables.values import plain

METADATA_FILE = "pool/metadata.parquet"
_LINE = "\0line"
"""No column of a user has this name."""


def import_metadata(home: Location, source: Location, shards: list[str]) -> None:
    """Copy the table of a CSV, JSON-lines or Parquet file with a row for each shard; values are kept as text.

    Raises InputError if there is no such file, a shard of the pool has no row, a shard has two, or a row names no shard
    of the pool.
    """
    if not source.exists():
        raise InputError(f"pool.metadata={source}: no such file; correct the path")
    found: dict[str, dict[str, str]] = {}
    known = set(shards)
    for row in read_rows(source, ("shard",), line_key=_LINE):
        line, shard = row.pop(_LINE), str(row.pop("shard"))
        if shard not in known:
            raise InputError(f"{source}: line {line}: shard {shard!r} is not in the pool, whose first is {shards[0]!r}")
        if shard in found:
            rule = "; a row is for a whole shard, groups of its items are a pattern on the key" if "key" in row else ""
            raise InputError(f"{source}: line {line}: shard {shard!r} has two rows; keep one{rule}")
        found[shard] = {name: "" if value is None else plain(str(value)) for name, value in row.items()}
    missing = [shard for shard in shards if shard not in found]
    if missing:
        raise InputError(f"{source}: no row for {len(missing)} of {len(shards)} shards, first {missing[0]!r}; add them")
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    columns = {name: pa.array([row.get(name, "") for row in found.values()], pa.string()) for name in names}
    (home / METADATA_FILE).write_table(pa.table({"shard": list(found), **columns}))


def read_groups(home: Location, rule: str) -> Groups:
    """The groups of pool.group. Raises ConfigError if it names a column that there is not."""
    if not rule.startswith(GROUP_COLUMN):
        return Groups(pattern=rule)
    return Groups(by_shard=read_strata(home, rule.removeprefix(GROUP_COLUMN), f"pool.group={rule}"))


def read_strata(home: Location, column: str, setting: str = "") -> dict[str, str]:
    """The value of a column for each shard. Raises ConfigError, which names the setting, if there is no such column."""
    table = (home / METADATA_FILE).read_table()
    if column not in table.column_names[1:]:
        have = ", ".join(table.column_names[1:]) or "none"
        setting = setting or f"select.stratify={column}"
        raise ConfigError(f"{setting}: pool.metadata has no such column; it has: {have}")
    return dict(zip(table["shard"].to_pylist(), table[column].to_pylist(), strict=True))


def which_meet(home: Location, where: str, shards: Sequence[str] | pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which of N shards (N,) meet the condition of select.where, on columns of pool.metadata.

    As in SQL a comparison with an empty cell is neither true nor false, and only "is null" asks for it. A shard without
    a row has empty cells alone. A condition that is not true keeps a shard out.

    Raises ConfigError if there is no such column, or a value is not of the kind that it is compared with.
    """
    condition, table = condition_of(where), (home / METADATA_FILE).read_table()
    have = table.column_names[1:]
    if unknown := [name for name in columns_in(condition) if name not in have]:
        listed = f"it has: {', '.join(have) or 'none'}{did_you_mean(unknown[0], have)}"
        raise ConfigError(f"select.where={where}: pool.metadata has no column {unknown[0]!r}; {listed}")
    names = shards if isinstance(shards, pa.ChunkedArray) else pa.array(shards, pa.string())
    place = pc.index_in(names, value_set=table["shard"].combine_chunks())
    rows = table.select(list(dict.fromkeys(columns_in(condition)))).take(place)
    try:
        is_met = _met(condition, rows)
    except ValueError as error:
        raise ConfigError(f"select.where={where}: {error}; correct pool.metadata, or compare with a text") from error
    found: NDArray[np.bool_] = pc.fill_null(is_met, False).to_numpy(zero_copy_only=False)
    return found


def some_meet(home: Location, where: str, shards: Sequence[str] | pa.ChunkedArray) -> NDArray[np.bool_]:
    """As `which_meet`. Raises ConfigError if none does."""
    found = which_meet(home, where, shards)
    if not found.any():
        why = f"none of the {len(shards):,} shards of the pool meets it; correct it"
        raise ConfigError(f"select.where={where}: {why}, or pick of all: --set select.where=''")
    return found


def _met(condition: Condition, rows: pa.Table) -> pa.Array:
    """For each row true, false, or null where that cannot be said."""
    if isinstance(condition, Leaf):
        return _compared(condition, rows[condition.column])
    first, *others = (_met(part, rows) for part in condition.parts)
    if condition.how == "not":
        return pc.invert(first)
    join = pc.and_kleene if condition.how == "and" else pc.or_kleene
    for other in others:
        first = join(first, other)
    return first


def _compared(leaf: Leaf, column: pa.ChunkedArray) -> pa.Array:
    # Each value is looked at once: a column has few different ones.
    codes = column.combine_chunks().dictionary_encode()
    texts, empty = codes.dictionary.to_pylist(), pc.is_null(codes.indices)
    if leaf.kind == "null":
        is_empty = pa.array([text == "" for text in texts], pa.bool_()).take(codes.indices)
        return pc.fill_null(is_empty, True)
    answers: list[bool | None] = []
    for text in texts:
        try:
            answers.append(None if text == "" else leaf.holds(value_of(text, leaf.kind)))
        except ValueError as error:
            raise ValueError(f"{leaf.column}: {text!r} is no {leaf.kind}") from error
    found = pa.array(answers, pa.bool_()).take(codes.indices)
    return pc.if_else(empty, pa.scalar(None, pa.bool_()), found)
