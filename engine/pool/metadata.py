"""Metadata of shards: columns to stratify and to group by, copied into the campaign at init."""

import pyarrow as pa

from engine.config.texts import GROUP_COLUMN
from engine.errors import ConfigError, InputError
from engine.pool.identity import Groups
from engine.storage.location import Location
from engine.tables.rows import read_rows

_LINE = "\0line"
"""No column of a user has this name."""


def import_metadata(home: Location, source: Location, shards: list[str]) -> None:
    """Copy the table of a CSV, JSON-lines or Parquet file with a row for each shard; values are kept as text.

    Raises InputError if a shard of the pool has no row, a shard has two, or a row names no shard of the pool.
    """
    found: dict[str, dict[str, str]] = {}
    known = set(shards)
    for row in read_rows(source, ("shard",), line_key=_LINE):
        line, shard = row.pop(_LINE), str(row.pop("shard"))
        if shard not in known:
            raise InputError(f"{source}: line {line}: shard {shard!r} is not in the pool, whose first is {shards[0]!r}")
        if shard in found:
            rule = "; a row is for a whole shard, groups of its items are a pattern on the key" if "key" in row else ""
            raise InputError(f"{source}: line {line}: shard {shard!r} has two rows; keep one{rule}")
        found[shard] = {name: "" if value is None else str(value) for name, value in row.items()}
    missing = [shard for shard in shards if shard not in found]
    if missing:
        raise InputError(f"{source}: no row for {len(missing)} of {len(shards)} shards, first {missing[0]!r}; add them")
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    columns = {name: pa.array([row.get(name, "") for row in found.values()], pa.string()) for name in names}
    (home / "pool/metadata.parquet").write_table(pa.table({"shard": list(found), **columns}))


def read_groups(home: Location, rule: str) -> Groups:
    """The groups of pool.group. Raises ConfigError if it names a column that there is not."""
    if not rule.startswith(GROUP_COLUMN):
        return Groups(pattern=rule)
    return Groups(by_shard=read_strata(home, rule.removeprefix(GROUP_COLUMN), f"pool.group={rule}"))


def read_strata(home: Location, column: str, setting: str = "") -> dict[str, str]:
    """The value of a column for each shard. Raises ConfigError, which names the setting, if there is no such column."""
    table = (home / "pool/metadata.parquet").read_table()
    if column not in table.column_names[1:]:
        have = ", ".join(table.column_names[1:]) or "none"
        setting = setting or f"select.stratify={column}"
        raise ConfigError(f"{setting}: pool.metadata has no such column; it has: {have}")
    return dict(zip(table["shard"].to_pylist(), table[column].to_pylist(), strict=True))
