"""The images that are never picked, as the file of select.exclude names them: by their names, or by their bytes."""

import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.config.texts import plural
from engine.errors import InputError, one_line
from engine.storage.location import Location

HASH_DIGITS = 32
"""Of a content hash: 128 bits in hex."""
_COLUMNS = ("shard", "key", "content_hash")
Hashes = NDArray[np.bytes_]


class Exclusions(NamedTuple):
    """Names of images, a table of shard and key, each once; the content hashes of images (H,) `S32`, ascending, each
    once; and how many rows the file has."""

    names: pa.Table
    hash_H: Hashes
    num_rows: int


NO_EXCLUSIONS = Exclusions(pa.table({name: pa.array([], pa.string()) for name in _COLUMNS[:2]}), np.empty(0, "S32"), 0)


def content_mark(url: str) -> str:
    """SHA-256 of a file's content, hex; empty where it cannot be found."""
    try:
        source = Location.of(url)
        with source.filesystem.open_input_stream(source.path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Location.of(url).unreadable(error) from error


def read_exclusions(url: str) -> Exclusions:
    """Read the file. Memory depends on it alone: about 100 bytes a row.

    Raises InputError for a file that is missing or of another format, a row that names nothing, and a content hash that
    is none.
    """
    source = Location.of(url)
    table = _table(source)
    found = {name: _texts(table, name) for name in _COLUMNS}
    shard, key, digest = (pc.not_equal(found[name], "") for name in _COLUMNS)
    for fault, why in (
        (pc.xor(shard, key), "shard and key go together, and one of them is empty"),
        (pc.invert(pc.or_(shard, digest)), "names no image; give shard and key, or content_hash"),
    ):
        if (row := pc.index(fault, True).as_py()) >= 0:
            raise InputError(f"{source}: row {row + 1}: {why}")
    is_hash = pc.match_substring_regex(found["content_hash"], "^[0-9a-fA-F]{32}$")
    if (row := pc.index(pc.and_(digest, pc.invert(is_hash)), True).as_py()) >= 0:
        given = found["content_hash"][row].as_py()
        why = f"content_hash {given!r} is none: they have {HASH_DIGITS} hex digits, as in a selection.parquet"
        raise InputError(f"{source}: row {row + 1}: {why}")
    names = pa.table({name: found[name].filter(shard) for name in _COLUMNS[:2]}).group_by(list(_COLUMNS[:2]))
    hashes = pc.utf8_lower(pc.unique(found["content_hash"].filter(digest)))
    return Exclusions(names.aggregate([]).select(list(_COLUMNS[:2])), np.unique(hashes_of(hashes)), len(table))


def hashes_of(column: pa.Array | pa.ChunkedArray) -> Hashes:
    """Content hashes (N,) as `S32`; of a null an empty one."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    fixed = pc.fill_null(whole, "\0" * HASH_DIGITS).cast(pa.binary()).cast(pa.binary(HASH_DIGITS))
    begin, buffer = fixed.offset * HASH_DIGITS, fixed.buffers()[1]
    return np.frombuffer(buffer, f"S{HASH_DIGITS}", len(fixed), begin) if len(fixed) else np.empty(0, "S32")


def is_among(hash_N: Hashes, hash_H: Hashes) -> NDArray[np.bool_]:
    """Which hashes are among the ascending ones."""
    if not len(hash_H):
        return np.zeros(len(hash_N), np.bool_)
    place_N = np.minimum(np.searchsorted(hash_H, hash_N), len(hash_H) - 1)
    found: NDArray[np.bool_] = hash_H[place_N] == hash_N
    return found


def _table(source: Location) -> pa.Table:
    suffix = source.name.rpartition(".")[2].lower()
    if suffix not in ("csv", "parquet"):
        raise InputError(f"{source}: unknown format .{suffix}; give .csv or .parquet")
    try:
        if suffix == "parquet":
            with source.filesystem.open_input_file(source.path) as file:
                parquet = pq.ParquetFile(file)
                names = _known(source, parquet.schema_arrow.names)
                return parquet.read(names)
        with (
            source.filesystem.open_input_stream(source.path) as stream,
            pyarrow.csv.open_csv(
                stream, convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pa.string()))
            ) as reader,
        ):
            return pa.Table.from_batches(list(reader), reader.schema).select(_known(source, reader.schema.names))
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file; give another one, or none: --set select.exclude=''") from error
    except pa.ArrowException as error:
        raise InputError(f"{source}: cannot be read as .{suffix}: {one_line(error)}; correct it") from error
    except OSError as error:
        raise source.unreadable(error) from error


def _known(source: Location, names: list[str]) -> list[str]:
    found = [name for name in _COLUMNS if name in names]
    if "content_hash" in found or {"shard", "key"} <= {*found}:
        return found
    raise InputError(f"{source}: no columns shard and key, nor content_hash, among {', '.join(names) or 'none'}")


def _texts(table: pa.Table, name: str) -> pa.Array:
    """A column as texts, empty where it has no value; all empty where there is no such column."""
    if name not in table.column_names:
        return pa.repeat("", len(table))
    column = table[name].combine_chunks()
    return pc.fill_null(column.cast(pa.string()), "")


def lines_on_kept_out(counts: dict[str, int]) -> list[str]:
    """What was kept out, for a person, by the counts of a selection's manifest."""
    lines = []
    if "out_by_where" in counts:
        lines.append(f"select.where keeps out {plural(counts['out_by_where'], 'image')}")
    if "excluded" in counts:
        missed = counts["exclude_unmatched"]
        entries = "entries matches" if missed == 1 else "entries match"
        rest = f"; {missed:,} of its {entries} no scored image" if missed else ""
        lines.append(f"select.exclude keeps out {plural(counts['excluded'], 'image')}{rest}")
    return lines
