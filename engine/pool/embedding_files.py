"""Embeddings in Parquet files: a row with shard, key and embedding for each item, in one file or many.

Files that are sorted by shard, in row groups of about a shard, are read once; see `engine.pool.embedding_parquet`.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import braceexpand
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.config.texts import plural
from engine.errors import ConfigError, InputError
from engine.pool.embedding_parquet import CACHED_BYTES, EmbeddingFile, indexed, num_foreign, rows_of_shard
from engine.pool.vectors import VectorError, faults_of_rows, to_float32
from engine.storage.globs import matches_of
from engine.storage.location import Location

INDEX_THREADS = 16


class ShardVectors(NamedTuple):
    """The embeddings of a shard: `rows` are those of the matrix (N, D) float32 by key, `faults` those of faulty items.

    A key in neither has no row.
    """

    matrix_ND: NDArray[np.float32]
    rows: dict[str, int]
    faults: dict[str, VectorError]

    def of(self, key: str) -> NDArray[np.float32]:
        """The vector of an item (D,). Raises VectorError: NoVector, TwoVectors, WrongLength, NotFinite or AllZero."""
        row = self.rows.get(key)
        if row is None:
            raise self.faults.get(key) or VectorError("NoVector", "no row with its shard and key in pool.embeddings")
        vector: NDArray[np.float32] = self.matrix_ND[row]
        return vector


@dataclass(frozen=True)
class EmbeddingFiles:
    """The files of a pool's embeddings, as they were when they were indexed, and the length D of their vectors."""

    files: tuple[EmbeddingFile, ...]
    length: int

    @property
    def fingerprint(self) -> str:
        """A hash of what the files are: their places, sizes and marks."""
        lines = (f"{file.url}\0{file.size_bytes}\0{file.mark}" for file in self.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def num_rows(self) -> int:
        return sum(file.num_rows for file in self.files)

    @property
    def advice(self) -> str:
        """A line for whoever wrote row groups that are read again for every shard in them; empty for good ones."""
        largest = max(self.files, key=lambda file: file.largest_bytes)
        of_one = all(ends is not None and ends[0] == ends[1] for ends in largest.groups)
        if largest.largest_bytes <= CACHED_BYTES or of_one:
            return ""
        what = f"{largest.url}: a row group of {largest.largest_bytes >> 20} MiB is read again for every shard in it"
        return f"{what}; sort the rows by shard and write row groups of about a shard"

    def vectors_of(self, shard: str) -> ShardVectors:
        """The embeddings of a shard's items.

        Raises InputError if a file changed since it was indexed, cannot be read, or has a row without shard or key.
        """
        tables = [table for file in self.files for table in rows_of_shard(file, shard)]
        return _to_vectors(tables, self.length)

    def num_foreign(self, shards: set[str]) -> int:
        """How many rows are of other shards than these. Reads the column `shard`, which takes little where few values
        repeat, of the row groups with more than one."""
        with ThreadPoolExecutor(INDEX_THREADS) as threads:
            return sum(threads.map(lambda file: num_foreign(file, shards), self.files))


def index_embeddings(pattern: str) -> EmbeddingFiles:
    """The files of a path or URL, which may have globs (*.parquet) or brace ranges; reads the end of each.

    Raises:
        InputError: no file matches, one is no Parquet file, or lacks a column; a column has another type, or a row has
            no shard or key; vectors differ in length between files; there is no vector.
        ConfigError: the pattern has a brace without its partner, or is no path or URL.
    """
    try:
        plain = [Location.of(text) for text in braceexpand.braceexpand(pattern)]
    except ValueError as error:
        why = "a brace without its partner; escape it: '\\{' or '\\}'"
        raise ConfigError(f"pool.embeddings={pattern}: {why}") from error
    locations = sorted({match for location in plain for match in matches_of(location)}, key=str)
    if not locations:
        raise InputError(f"pool.embeddings={pattern}: no file matches; check the path")
    with ThreadPoolExecutor(INDEX_THREADS) as threads:
        found = list(threads.map(indexed, locations))
    lengths = [(file.url, length) for file, length in found if length is not None]
    if not lengths:
        raise InputError(f"pool.embeddings={pattern}: no embedding in {plural(len(found), 'file')}")
    (first, length), other = lengths[0], next((item for item in lengths if item[1] != lengths[0][1]), None)
    if other:
        why = f"vectors of {other[1]} numbers, those of {first} have {length}"
        raise InputError(f"{other[0]}: {why}; use one encoder for the whole pool")
    return EmbeddingFiles(tuple(file for file, _ in found), length)


def _to_vectors(tables: list[pa.Table], length: int) -> ShardVectors:
    faults: dict[str, VectorError] = {}
    keys: list[str] = []
    parts = [np.empty((0, length), np.float32)]
    for table in tables:
        names, column = table["key"].to_pylist(), table["embedding"].combine_chunks()
        sizes = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
        for row in np.flatnonzero(sizes != length):
            faults[names[row]] = _fault_of_length(int(sizes[row]), length)
        is_right = sizes == length
        flat = column.filter(pa.array(is_right)).flatten()
        matrix = to_float32(flat.to_numpy(zero_copy_only=False)).reshape(-1, length)
        good = [name for name, right in zip(names, is_right, strict=True) if right]
        faults |= {good[row]: fault for row, fault in faults_of_rows(matrix).items()}
        keys += good
        parts.append(matrix)
    _add_repeated(faults, [key for table in tables for key in table["key"].to_pylist()])
    rows = {key: row for row, key in enumerate(keys) if key not in faults}
    return ShardVectors(np.concatenate(parts), rows, faults)


def _fault_of_length(size: int, length: int) -> VectorError:
    if size < 0:
        return VectorError("NoVector", "its row in pool.embeddings has no embedding")
    return VectorError("WrongLength", f"a vector of {size} numbers, the pool's have {length}")


def _add_repeated(faults: dict[str, VectorError], keys: list[str]) -> None:
    """A fault for every key with two rows, whatever they are: none says which is its own."""
    seen = set[str]()
    for key in keys:
        if key in seen:
            faults[key] = VectorError("TwoVectors", "two rows with its shard and key in pool.embeddings; keep one")
        seen.add(key)
