"""Reading committed scores: a file is the one that the manifest names, or whoever reads it stops by its name."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import InputError
from engine.storage.location import Location

WHOLE_BYTES = 32 << 20
"""Of an object store, a file of at most this size is read whole, in one request."""


@contextmanager
def open_scores(folder: Location, entry: dict[str, Any], *, is_checked: bool) -> Iterator[pq.ParquetFile]:
    """A committed scores file; `entry` is its row in the manifest.

    With `is_checked` all its bytes are compared with the manifest's size and SHA-256; without, only what is cheap.

    Raises:
        InputError: the file is missing, or is not the one that was committed.
    """
    file = folder / entry["file"]
    is_whole = not file.is_local and entry["size_bytes"] <= WHOLE_BYTES
    source = pa.BufferReader(file.read_bytes()) if is_whole else None
    if is_checked and _digest(file, source) != entry["sha256"]:
        raise damaged(file, "its SHA-256 is not the manifest's")
    try:
        with source or file.filesystem.open_input_file(file.path) as stream:
            if stream.size() != entry["size_bytes"]:
                raise damaged(file, f"{stream.size()} bytes, the manifest says {entry['size_bytes']}")
            # Reading ahead spares round trips to an object store; on a disk it takes six times as long.
            parquet = pq.ParquetFile(stream, pre_buffer=not file.is_local and not is_whole)
            if parquet.metadata.num_rows != entry["scored"]:
                raise damaged(file, f"{parquet.metadata.num_rows} rows, the manifest says {entry['scored']}")
            yield parquet
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, str(error).splitlines()[0]) from error


def read_scores(folder: Location, entry: dict[str, Any], columns: list[str]) -> pa.Table:
    """Columns of one committed scores file, rows in archive order. Raises InputError as `open_scores` does."""
    with open_scores(folder, entry, is_checked=True) as file:
        return file.read(columns).replace_schema_metadata()


def num_latents_of(folder: Location, entry: dict[str, Any]) -> int:
    """The length of the latents in a scores file. Raises InputError when it is of an earlier version."""
    with open_scores(folder, entry, is_checked=False) as file:
        schema = file.schema_arrow
    missing = {"content_hash", "perceptual_hash", "latent"} - set(schema.names)
    if missing:
        raise InputError(
            f"{folder / entry['file']}: without {', '.join(sorted(missing))}, by an earlier version; delete "
            f"{folder}/manifest.json, then run: vaal score"
        )
    return int(schema.field("latent").type.list_size)


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
