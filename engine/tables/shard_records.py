"""The records of committed shards as columns, and the files that hold them.

A million records are a table of some hundred MiB, where a Python object each would take gigabytes. Files are sorted by
shard, hold a bounded number of rows, and have names that follow from their bytes.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from engine.errors import ConfigError, one_line
from engine.storage.location import Location
from engine.tables.scores import ShardRecord, to_table

FILE_ROWS = 65_536
READ_THREADS = 16
RECORDS_SCHEMA = pa.schema(
    pa.field(name, pa.int64() if kind is int else pa.string(), nullable=False)
    for name, kind in ShardRecord.__annotations__.items()
)
"""A row a record; `errors` is JSON."""
_COUNTS = ("listed", "scored", "quarantined", "unused_files", "unused_bytes")
_ERRORS_AT = RECORDS_SCHEMA.get_field_index("errors")
_ERRORS = TypeAdapter(dict[str, int])


def table_of(records: Iterable[ShardRecord]) -> pa.Table:
    """RECORDS_SCHEMA, rows in the order given. Few of the records are rows of Python at a time."""
    tables, left = [RECORDS_SCHEMA.empty_table()], iter(records)
    while part := [row_of(record) for record in islice(left, FILE_ROWS)]:
        tables.append(to_table(part, RECORDS_SCHEMA))
    return pa.concat_tables(tables)


def row_of(record: ShardRecord) -> tuple[object, ...]:
    """A record as a row of RECORDS_SCHEMA."""
    return tuple({**record._asdict(), "errors": json.dumps(record.errors)}.values())


def records_in(table: pa.Table) -> Iterator[ShardRecord]:
    """The rows of RECORDS_SCHEMA as records, one after another. Raises ConfigError for errors that are not counts."""
    for batch in table.to_batches(max_chunksize=FILE_ROWS):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            # Most shards have no error.
            errors = {} if row[_ERRORS_AT] == "{}" else _counts_in(row[_ERRORS_AT])
            yield ShardRecord(*row)._replace(errors=errors)


def _counts_in(text: str) -> dict[str, int]:
    try:
        return _ERRORS.validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(f"errors={text!r}") from error


def record_of(table: pa.Table, shard: str) -> ShardRecord | None:
    """The record of one shard; None without one."""
    return next(records_in(table.filter(pc.equal(table["shard"], shard)).slice(0, 1)), None)


def counts_of(table: pa.Table) -> dict[str, int]:
    """The sums over all records that a manifest counts, and their number as `shards`."""
    return {"shards": len(table), **{name: pc.sum(table[name]).as_py() or 0 for name in _COUNTS}}


def content_hash_of(table: pa.Table) -> str:
    """SHA-256 of what the records say apart from the names of their files; rows in their order.

    It equals `engine.campaign.freshness.content_of` of a manifest that has the entries inside, so that a selection made
    by an earlier version is still seen to be of these scores.
    """
    digest, before = hashlib.sha256(b'{"files": {}, "shards": ['), ""
    for record in records_in(table):
        entry = {name: value for name, value in record.entry().items() if name != "file"}
        digest.update(f"{before}{json.dumps(entry, sort_keys=True)}".encode())
        before = ", "
    digest.update(b'], "signal": null}')
    return digest.hexdigest()


def write_records(folder: Location, table: pa.Table) -> dict[str, str]:
    """Write a table sorted by shard as files of FILE_ROWS rows. Returns the SHA-256 of each by its name."""

    def write(number: int) -> tuple[str, str]:
        sink = pa.BufferOutputStream()
        part = table.slice(number * FILE_ROWS, FILE_ROWS)
        pq.write_table(part, sink, compression="zstd", use_dictionary=["errors", "failure", "unused_example"])
        content = sink.getvalue().to_pybytes()
        sha256 = hashlib.sha256(content).hexdigest()
        # Before those of a run that goes on: of two records of a shard, the one in the later file counts.
        name = f"{number:06d}-{sha256[:16]}.parquet"
        return name, (folder / name).write_bytes(content)

    with ThreadPoolExecutor(4) as threads:
        return dict(threads.map(write, range(-(-len(table) // FILE_ROWS))))


def read_records(folder: Location, files: dict[str, str], advice: str, columns: list[str] | None = None) -> pa.Table:
    """These columns of the files, by default all, sorted by shard.

    Raises:
        InputError: a file is missing, or is not the one with this SHA-256; the text ends with the advice.
        ConfigError: a file has other columns.
    """
    schema = pa.schema([RECORDS_SCHEMA.field(name) for name in columns or RECORDS_SCHEMA.names])

    def read(name: str) -> pa.Table:
        content = io.BytesIO((folder / name).read_verified(files[name], advice))
        try:
            return pq.read_table(content, columns=schema.names, use_threads=False).cast(schema)
        except (KeyError, ValueError, OSError, pa.ArrowException) as error:
            raise ConfigError(f"{folder / name}: not a ledger of shards: {one_line(error)}; {advice}") from error

    with ThreadPoolExecutor(READ_THREADS) as threads:
        return pa.concat_tables([schema.empty_table(), *threads.map(read, sorted(files))])


def read_ledger(folder: Location) -> pa.Table:
    """The records of committed shards in a folder that a run may still write to, older ones first: RECORDS_SCHEMA.

    Raises:
        InputError: a file is damaged.
        ConfigError: a file has other columns, or other values.
    """
    files = [folder / name for name in folder.children() if name.endswith(".parquet")]
    advice = "delete it, and its shards are counted again"
    with ThreadPoolExecutor(READ_THREADS) as threads:
        tables = list(threads.map(lambda file: file.read_typed_table(RECORDS_SCHEMA, advice), files))
    for file, table in zip(files, tables, strict=True):
        try:
            # Few different texts stand in millions of rows.
            for text in pc.unique(table["errors"]).to_pylist():
                _counts_in(text)
        except ConfigError as error:
            raise ConfigError(f"{file}: not a ledger: {error}; {advice}") from error
    return pa.concat_tables([RECORDS_SCHEMA.empty_table(), *tables])


def first_unused(table: pa.Table) -> str:
    """An example of a file that belongs to no item; "" without one."""
    found = table["unused_example"].filter(pc.not_equal(table["unused_example"], ""))
    return str(found[0].as_py()) if len(found) else ""
