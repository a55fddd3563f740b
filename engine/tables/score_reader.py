"""Reading committed scores: a file is the one that the manifest names, or whoever reads it stops by its name."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import InputError
from engine.storage.location import Location
from engine.tables.scores import ShardRecord

WHOLE_BYTES = 32 << 20
"""Of an object store, a file of at most this size is read whole, in one request."""


@contextmanager
def open_scores(folder: Location, record: ShardRecord, *, is_checked: bool) -> Iterator[pq.ParquetFile]:
    """A committed scores file, compared with its record: its size, and with `is_checked` its SHA-256.

    Raises:
        InputError: the file is missing, or is not the one that was committed.
    """
    file = folder / record.file
    is_whole = not file.is_local and record.size_bytes <= WHOLE_BYTES
    source = pa.BufferReader(file.read_bytes()) if is_whole else None
    if is_checked and _digest(file, source) != record.sha256:
        raise damaged(file, "its SHA-256 is not the manifest's")
    try:
        with source or file.filesystem.open_input_file(file.path) as stream:
            if stream.size() != record.size_bytes:
                raise damaged(file, f"{stream.size()} bytes, the manifest says {record.size_bytes}")
            # Reading ahead spares round trips to an object store; on a disk it takes six times as long.
            parquet = pq.ParquetFile(stream, pre_buffer=not file.is_local and not is_whole)
            if parquet.metadata.num_rows != record.scored:
                raise damaged(file, f"{parquet.metadata.num_rows} rows, the manifest says {record.scored}")
            yield parquet
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, str(error).splitlines()[0]) from error


def read_scores(folder: Location, record: ShardRecord, columns: list[str]) -> pa.Table:
    """Columns of one committed scores file, rows in archive order. Raises InputError as `open_scores` does."""
    with open_scores(folder, record, is_checked=True) as file:
        return file.read(columns).replace_schema_metadata()


def num_latents_of(folder: Location, record: ShardRecord) -> int:
    """The length of the latents in a scores file."""
    with open_scores(folder, record, is_checked=False) as file:
        return int(file.schema_arrow.field("latent").type.list_size)


def damaged(file: Location, why: str) -> InputError:
    """The error for a file of scores that cannot be used."""
    folder = file.url.rpartition("/")[0]
    return InputError(
        f"{file}: damaged since it was committed: {why}; delete it and {folder}/manifest.json, then run: vaal score"
    )


def _digest(file: Location, source: pa.NativeFile | None) -> str:
    """The SHA-256 of the file, or of what was read of it."""
    try:
        with nullcontext(source) if source else file.filesystem.open_input_stream(file.path) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if source:
                source.seek(0)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    return digest
