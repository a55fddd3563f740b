"""Reads committed scores. A file that is not the one in the manifest is an error that names it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import InputError, one_line
from engine.storage.location import Location
from engine.storage.retries import is_refusal
from engine.tables.scores import ShardRecord

WHOLE_BYTES = 32 << 20
"""A file of at most this size is read from an object store whole, in one request."""
_FOOTER_END = 8
"""Bytes at the end of a Parquet file: the length of the footer before them, and PAR1."""


@contextmanager
def open_scores(folder: Location, record: ShardRecord, *, is_checked: bool) -> Iterator[pq.ParquetFile]:
    """A committed scores file whose size is that of its record.

    With `is_checked` every byte that is read is verified: the footer by its SHA-256 in the record, pages by their
    checksums; where they have none, the whole file by its SHA-256.

    Raises InputError if the file is missing, or is not the one that was committed; UnreadableError if the storage
    refused.
    """
    file = folder / record.file
    is_whole = not file.is_local and record.size_bytes <= WHOLE_BYTES
    try:
        content = file.read_bytes() if is_whole else None
        has_checksums = bool(record.footer_sha256)
        if is_checked and not has_checksums and _sha256(file, content) != record.sha256:
            raise damaged(file, "its SHA-256 is not the manifest's")
        with pa.BufferReader(content) if content else file.filesystem.open_input_file(file.path) as stream:
            if stream.size() != record.size_bytes:
                raise damaged(file, f"{stream.size()} bytes, the manifest says {record.size_bytes}")
            if is_checked and has_checksums and footer_sha256(stream, record.size_bytes) != record.footer_sha256:
                raise damaged(file, "the SHA-256 of its footer is not the manifest's")
            # Reading ahead saves round trips to an object store; on a disk it takes six times as long.
            ahead = not file.is_local and not is_whole
            parquet = pq.ParquetFile(stream, pre_buffer=ahead, page_checksum_verification=is_checked and has_checksums)
            if parquet.metadata.num_rows != record.scored:
                raise damaged(file, f"{parquet.metadata.num_rows} rows, the manifest says {record.scored}")
            yield parquet
    except FileNotFoundError as error:
        raise InputError(
            f"{file}: cannot be read: No such file or directory; {fix_of(file, 'restore it, or')}"
        ) from error
    except (OSError, pa.ArrowException) as error:
        if is_refusal(error):
            raise file.unreadable(error) from error
        raise damaged(file, one_line(error)) from error


def read_scores(folder: Location, record: ShardRecord, columns: list[str]) -> pa.Table:
    """Columns of one committed scores file, rows in archive order. Raises InputError as `open_scores` does."""
    with open_scores(folder, record, is_checked=True) as file:
        return file.read(columns).replace_schema_metadata()


def num_latents_of(folder: Location, record: ShardRecord) -> int:
    """The length of the latents in a scores file."""
    with open_scores(folder, record, is_checked=False) as file:
        return int(file.schema_arrow.field("latent").type.list_size)


def columns_of(folder: Location, record: ShardRecord) -> set[str]:
    """The columns of a scores file."""
    with open_scores(folder, record, is_checked=False) as file:
        return set(file.schema_arrow.names)


def damaged(file: Location, why: str) -> InputError:
    """The error for an unusable scores file."""
    return InputError(f"{file}: damaged since it was committed: {why}; {fix_of(file, 'delete it, and')}")


def fix_of(file: Location, first: str) -> str:
    """What to do about a scores file: in the newest round it can be made again."""
    folder = file.url.rpartition("/")[0]
    if not is_newest(Location(folder)):
        return "its round is over: restore it from a copy"
    return f"{first} delete {folder}/manifest.json, then run: vaal score {folder.rpartition('/rounds/')[0]}"


def is_newest(folder: Location) -> bool:
    """Whether the folder of a stage is in the newest round, the only one in which a command makes anything again."""
    home, is_in_round, name = folder.url.rpartition("/rounds/")
    return not is_in_round or name.partition("/")[0] == max((Location(home) / "rounds").folders(), default="")


def footer_sha256(stream: Any, size_bytes: int) -> str:
    """The SHA-256 of the footer of an open Parquet file of this size, its length and the magic bytes included."""
    stream.seek(max(0, size_bytes - _FOOTER_END))
    end = stream.read(_FOOTER_END)
    stream.seek(max(0, size_bytes - _FOOTER_END - int.from_bytes(end[:4], "little")))
    return hashlib.sha256(stream.read()).hexdigest()


def _sha256(file: Location, content: bytes | None) -> str:
    """The SHA-256 of a file, whose content may have been read."""
    if content is not None:
        return hashlib.sha256(content).hexdigest()
    with file.filesystem.open_input_stream(file.path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
