"""A Parquet file of embeddings: a row with shard, key and embedding for each item.

A shard's rows are read from the row groups that may hold it, by their statistics. Of a row group up to CACHED_BYTES a
process keeps the content, so that a small file in one row group is not decoded again for every shard; a larger one is
read in pieces.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from engine.errors import InputError, one_line
from engine.pool.shard import mark_of
from engine.pool.vectors import MAX_LENGTH
from engine.storage.location import Location
from engine.storage.retries import is_refusal, retried

COLUMNS = ("shard", "key", "embedding")
CACHED_BYTES = 128 << 20
"""Largest row group that is kept whole, in bytes as Parquet counts them before compression."""
BATCH_ROWS = 4096
"""Rows of a larger row group that are in memory at once."""
_BUFFER_BYTES = 1 << 20


class EmbeddingFile(NamedTuple):
    """A Parquet file: `mark` changes when it is written again; `groups` are the first and the last shard of each row
    group, or None where it does not say; `largest_bytes` is the size of the largest, before compression."""

    url: str
    size_bytes: int
    mark: str
    num_rows: int
    groups: tuple[tuple[str, str] | None, ...]
    largest_bytes: int = 0


def indexed(location: Location) -> tuple[EmbeddingFile, int | None]:
    """A file, and the length of its vectors; None if it has none. Reads its end.

    Raises InputError if it is missing, no Parquet file, or lacks a column; a column has another type, or a row has no
    shard or key.
    """
    file = EmbeddingFile(location.url, *_looked_up(location), num_rows=0, groups=())
    with _reading(file):
        return retried(lambda: _described(file))


def _described(file: EmbeddingFile) -> tuple[EmbeddingFile, int | None]:
    with _opened(file) as parquet:
        metadata, schema = parquet.metadata, parquet.schema_arrow
        _check_types(file, schema)
        groups = tuple(_ends(file, metadata.row_group(n)) for n in range(metadata.num_row_groups))
        kind = schema.field("embedding").type
        length = kind.list_size if pa.types.is_fixed_size_list(kind) else _most_common_length(parquet)
    if length is not None and not 1 <= length <= MAX_LENGTH:
        raise InputError(f"{file.url}: vectors of {length} numbers; give 1 to {MAX_LENGTH:,}")
    largest = max((metadata.row_group(n).total_byte_size for n in range(len(groups))), default=0)
    file = file._replace(num_rows=metadata.num_rows, groups=groups, largest_bytes=largest)
    return file, length if metadata.num_rows else None


def _check_types(file: EmbeddingFile, schema: pa.Schema) -> None:
    """Raises InputError if a column is missing, is there twice, or has another type."""
    for name in COLUMNS:
        if len(schema.get_all_field_indices(name)) != 1:
            why = f"one column {name!r} is needed among {', '.join(map(repr, schema.names)) or 'none'}"
            raise InputError(f"{file.url}: {why}; give {', '.join(COLUMNS)}")
    for name in COLUMNS[:2]:
        kind = schema.field(name).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain)):
            raise InputError(f"{file.url}: column {name!r} is {kind}; give strings")
    kind = schema.field("embedding").type
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise InputError(f"{file.url}: column 'embedding' is {kind}; give lists of float16, float32 or float64")


def _ends(file: EmbeddingFile, group: Any) -> tuple[str, str] | None:
    """The first and the last shard of a row group by its statistics."""
    columns = (group.column(n) for n in range(group.num_columns))
    statistics = {column.path_in_schema: column.statistics for column in columns}
    for name in COLUMNS[:2]:
        found = statistics[name]
        if found is not None and found.has_null_count and found.null_count:
            raise _without(file, name)
    shard = statistics["shard"]
    if shard is None or not shard.has_min_max or not isinstance(shard.min, str) or not isinstance(shard.max, str):
        return None
    return shard.min, shard.max


def _without(file: EmbeddingFile, name: str) -> InputError:
    return InputError(f"{file.url}: a row without {name}; every row needs shard and key")


def _most_common_length(parquet: pq.ParquetFile) -> int | None:
    """Of the first vectors: one that was cut off does not make all others wrong."""
    for batch in parquet.iter_batches(BATCH_ROWS, columns=["embedding"]):
        found = pc.mode(pc.list_value_length(batch["embedding"]))
        if len(found):
            return int(found[0]["mode"].as_py())
    return None


def num_foreign(file: EmbeddingFile, shards: set[str]) -> int:
    """How many rows of a file are of other shards than these. Raises InputError as `rows_of_shard` does."""
    with _reading(file), _opened(file) as parquet:
        groups = range(parquet.num_row_groups)
        return sum(retried(partial(_foreign_in_group, file, parquet, n, shards)) for n in groups)


def _foreign_in_group(file: EmbeddingFile, parquet: pq.ParquetFile, n: int, shards: set[str]) -> int:
    ends = file.groups[n]
    if ends is not None and ends[0] == ends[1]:
        return 0 if ends[0] in shards else int(parquet.metadata.row_group(n).num_rows)
    column = parquet.read_row_group(n, columns=["shard"])["shard"]
    counts = pc.value_counts(column.combine_chunks()).to_pylist()
    return sum(count["counts"] for count in counts if count["values"] not in shards)


def rows_of_shard(file: EmbeddingFile, shard: str) -> list[pa.Table]:
    """The rows of a shard in tables of key and embedding.

    Raises InputError if the file changed since it was indexed, cannot be read, or has a row without shard or key.
    """
    may_hold = [n for n, ends in enumerate(file.groups) if ends is None or ends[0] <= shard <= ends[1]]
    if not may_hold:
        return []
    with _reading(file):
        return [table for n in may_hold for table in _rows_of(file, n, shard)]


def _rows_of(file: EmbeddingFile, n: int, shard: str) -> list[pa.Table]:
    """The rows of a shard in a row group of a file: key and embedding."""
    size = retried(lambda: _metadata(file)).row_group(n).total_byte_size
    if size <= CACHED_BYTES:
        table, places = retried(lambda: _whole_group(file, n))
        return [table.take(places[shard])] if shard in places else []
    return retried(lambda: _rows_in_pieces(file, n, shard))


def _rows_in_pieces(file: EmbeddingFile, n: int, shard: str) -> list[pa.Table]:
    """As `_rows_of`, in memory bounded by BATCH_ROWS and the shard."""
    with _opened(file) as parquet:
        column = parquet.read_row_group(n, columns=["shard"])["shard"]
        left, parts = int(pc.sum(_is_of(column, shard)).as_py() or 0), []
        batches = parquet.iter_batches(BATCH_ROWS, row_groups=[n], columns=list(COLUMNS)) if left else iter(())
        while left > 0:
            part = _filled(file, pa.Table.from_batches([next(batches)]))
            parts.append(part.filter(_is_of(part["shard"], shard)).select(COLUMNS[1:]))
            left -= len(parts[-1])
    return parts


def _is_of(column: pa.ChunkedArray, shard: str) -> pa.ChunkedArray:
    return pc.equal(column.cast(pa.large_string()), shard)


@lru_cache(maxsize=2)
def _whole_group(file: EmbeddingFile, n: int) -> tuple[pa.Table, dict[str, NDArray[np.int64]]]:
    """Key and embedding of all rows of a row group, and the rows of each shard."""
    with _opened(file) as parquet:
        table = _filled(file, parquet.read_row_group(n, columns=list(COLUMNS))).combine_chunks()
    column = table["shard"].combine_chunks().dictionary_encode()
    codes, names = column.indices.to_numpy(zero_copy_only=False), column.dictionary.to_pylist()
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
    return table.select(COLUMNS[1:]), dict(zip(names, np.split(order, ends), strict=True))


def _filled(file: EmbeddingFile, table: pa.Table) -> pa.Table:
    """The rows with shard and key as plain strings. Raises InputError if one has none."""
    for name in COLUMNS[:2]:
        column = table[name].cast(pa.large_string())
        if column.null_count:
            raise _without(file, name)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


@contextmanager
def _reading(file: EmbeddingFile) -> Iterator[None]:
    """Turns errors of a file's reads into InputErrors that name it. If it was overwritten meanwhile, that is the error,
    whether the reads failed or not."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        _check_unchanged(file)
        if is_refusal(error):
            raise Location(file.url).unreadable(error) from error
        raise InputError(f"{file.url}: not a readable Parquet file: {one_line(error)}") from error
    except InputError:
        _check_unchanged(file)
        raise
    _check_unchanged(file)


def _check_unchanged(file: EmbeddingFile) -> None:
    size_bytes, mark = _looked_up(Location(file.url))
    if (size_bytes, mark) != (file.size_bytes, file.mark):
        listed, now = f"{file.size_bytes} bytes, {file.mark}", f"{size_bytes} bytes, {mark}"
        raise InputError(f"{file.url}: changed since it was read first ({listed}; now {now}); run the stage again")


def _looked_up(location: Location) -> tuple[int, str]:
    """Size and mark of a file. Raises InputError if it is none, or the storage does not say."""
    try:
        return retried(lambda: _size_and_mark(location))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{location}: cannot be looked up: {one_line(error)}") from error


def _size_and_mark(location: Location) -> tuple[int, str]:
    info = location.filesystem.get_file_info(location.path)
    if not info.is_file:
        is_folder = info.type == fs.FileType.Directory
        what = f"a folder; give '{location}/*.parquet'" if is_folder else "no such file; check the path"
        raise InputError(f"pool.embeddings: {location}: {what}")
    return info.size, mark_of(location, info)


@contextmanager
def _opened(file: EmbeddingFile) -> Iterator[pq.ParquetFile]:
    location = Location(file.url)
    with (
        location.filesystem.open_input_file(location.path) as source,
        pq.ParquetFile(source, metadata=_metadata(file), pre_buffer=False, buffer_size=_BUFFER_BYTES) as parquet,
    ):
        yield parquet


@lru_cache(maxsize=16)
def _metadata(file: EmbeddingFile) -> pq.FileMetaData:
    location = Location(file.url)
    with location.filesystem.open_input_file(location.path) as source:
        return pq.read_metadata(source)
