"""Places on local disks and object stores, and atomic writes to them.

A file appears whole or not at all: on a local disk by a rename, on an object store because an upload becomes visible
only when it completes. No file is ever appended to.
"""

import hashlib
import io
import json
import os
import re
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from engine.errors import ConfigError, InputError, StorageError, UnreadableError, advised, one_line
from engine.storage.endpoints import AZURE, READ, SCHEMES, WEB, fault_of_place, filesystem_at
from engine.storage.retries import is_refusal


def masked(url: str) -> str:
    """A URL that can be printed: without its user and password, which may have slashes in it, and its signature."""
    return re.sub(r"\?[^/]*=.*$", "?***", re.sub(r"://([^/@]*:.*|[^/]*)@", "://***@", url))


@dataclass(frozen=True)
class Location:
    """A file or folder: `url` is an absolute local path or an object-store URI, without a trailing slash."""

    url: str

    @staticmethod
    def of(url: str) -> "Location":
        """The location of what a user typed. A local path may be relative, begin with ~, or be a file:// URI.

        Raises ConfigError for an empty text or one that is not UTF-8, a scheme that is not read, or a URL with a
        password or signature.
        """
        url = url.removeprefix("file://")
        if not url.strip():
            raise ConfigError(f"an empty path; give {READ}")
        if not url.isascii() and (name := url.encode(errors="backslashreplace").decode()) != url:
            raise ConfigError(f"{name}: has bytes that are not UTF-8; rename it")
        scheme, has_scheme, rest = url.partition("://")
        if has_scheme:
            if fault := fault_of_place(scheme, rest.partition("/")[0], is_masked=masked(url) != url):
                raise ConfigError(f"{masked(url)}: {fault}")
            return Location(url.rstrip("/"))
        return Location(os.path.normpath(Path(url).expanduser().absolute()))

    def __truediv__(self, name: str) -> "Location":
        return Location(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def quoted(self) -> str:
        """The URL as a word of a command line."""
        return shlex.quote(self.url)

    @property
    def is_local(self) -> bool:
        return "://" not in self.url

    @property
    def has_etag(self) -> bool:
        """Whether a read of a file gives its ETag. Of a web server the time stands for it."""
        return self.url.partition("://")[0] in (*SCHEMES, *AZURE) and not self.is_local

    @property
    def is_listed(self) -> bool:
        """Whether the files of a folder can be listed: not those of a web server."""
        return self.is_local or self.url.partition("://")[0] not in WEB

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def path(self) -> str:
        """The path for the file system: without the scheme, the bucket first."""
        return self.url if self.is_local else self.url.split("://", 1)[1]

    @property
    def filesystem(self) -> fs.FileSystem:
        """Raises ConfigError for an unknown scheme."""
        if self.is_local:
            return _local_filesystem()
        return _remote_filesystem("/".join(self.url.split("/", 3)[:3]))

    def info(self) -> fs.FileInfo:
        """Type, size and modification time; a missing file has the type NotFound."""
        with self._reported("looked up"):
            info: fs.FileInfo = self.filesystem.get_file_info(self.path)
        return info

    def exists(self) -> bool:
        return bool(self.info().type != fs.FileType.NotFound)

    def children(self) -> dict[str, int]:
        """Name and size in bytes of each file in this folder, sorted, without drafts; empty without a folder."""
        found = ((info.base_name, info.size) for info in self._listed() if info.is_file)
        return {name: size for name, size in sorted(found) if not name.startswith(".")}

    def drafts(self) -> list[str]:
        """The names of what interrupted writes left in this folder, sorted: .NAME.DIGITS."""
        return sorted(info.base_name for info in self._listed() if info.is_file and info.base_name.startswith("."))

    def folders(self) -> list[str]:
        """The names of the folders in this folder, sorted; empty without a folder."""
        return sorted(info.base_name for info in self._listed() if info.type == fs.FileType.Directory)

    def _listed(self) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self.path, allow_not_found=True)
        with self._reported("listed"):
            try:
                infos: list[fs.FileInfo] = self.filesystem.get_file_info(selector)
            except FileNotFoundError:
                # Arrow looks twice, and the folder appeared or vanished in between.
                infos = self.filesystem.get_file_info(selector)
        return infos

    def read_bytes(self, most: int | None = None) -> bytes:
        """The content, or its first `most` bytes. Raises InputError when the file is missing or unreadable."""
        with self._reported("read"), self.filesystem.open_input_stream(self.path) as stream:
            content: bytes = stream.read(most)
        return content

    def read_verified(self, sha256: str | None, advice: str) -> bytes:
        """The content of a committed file.

        Raises InputError if the file is missing, or its SHA-256 differs; the text ends with the advice. Nobody is
        advised on an UnreadableError: the file may be whole.
        """
        with advised(advice):
            content = self.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InputError(f"{self}: not the file that was committed (its SHA-256 differs); {advice}")
        return content

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file as a table. Raises InputError when it is missing or is not Parquet, UnreadableError when the
        storage refused."""
        try:
            return pq.read_table(self.path, columns=columns, filesystem=self.filesystem, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            if is_refusal(error):
                raise self.unreadable(error) from error
            if isinstance(error, FileNotFoundError):
                raise InputError(f"{self}: cannot be read: No such file or directory") from error
            raise InputError(f"{self}: not a readable Parquet file: {_reason(error)}") from error

    def read_typed_table(self, schema: pa.Schema, advice: str = "restore it from a copy") -> pa.Table:
        """A Parquet file with exactly these columns; a last one that may be null may be missing. Errors end with the
        advice.

        Raises:
            InputError: the file is missing or is not Parquet.
            ConfigError: its columns or values do not fit.
        """
        try:
            with advised(advice):
                table, last = self.read_table(), schema.field(len(schema) - 1)
            if last.nullable and last.name not in table.column_names:
                table = table.append_column(last, pa.nulls(len(table), last.type))
            return table.cast(schema)
        except (ValueError, pa.ArrowException) as error:
            raise ConfigError(f"{self}: not a table of this kind: {_reason(error)}; {advice}") from error

    def write_bytes(self, content: bytes, content_type: str = "") -> str:
        """Write the file whole or not at all, replacing an older one. Returns its SHA-256 as hex.

        Args:
            content_type: the media type that an object store sends with the file.

        Raises StorageError if the storage refused (permission, full disk); an older file is still there.
        """
        if self.is_local:
            return self.write_file(io.BytesIO(content))
        metadata = {"Content-Type": content_type} if content_type else None
        with self._reported("written"), self.filesystem.open_output_stream(self.path, metadata=metadata) as stream:
            stream.write(content)
        return hashlib.sha256(content).hexdigest()

    def write_file(self, source: BinaryIO) -> str:
        """Like `write_bytes`, from an open file's position to its end."""
        if not self.is_local:
            # In one piece: closing the stream of an upload that failed half-way would complete it, cut off.
            return self.write_bytes(source.read())
        with self._reported("written"):
            sha256: str = _write_local(Path(self.path), source)
        return sha256

    def write_json(self, content: dict[str, Any]) -> str:
        """Like `write_bytes`."""
        return self.write_bytes((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    def write_table(self, table: pa.Table) -> str:
        """Write one Parquet file; like `write_bytes`. The same rows give the same bytes."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return self.write_bytes(sink.getvalue().to_pybytes())

    def delete(self) -> None:
        self.filesystem.delete_file(self.path)

    def clear(self) -> None:
        """Delete everything in this folder. Raises StorageError if the storage refused."""
        with self._reported("written"):
            self.filesystem.delete_dir_contents(self.path, missing_dir_ok=True)

    def remove(self) -> None:
        """Delete this folder, if it is there. Raises StorageError if the storage refused."""
        with self._reported("written"):
            if self.info().type == fs.FileType.Directory:
                self.filesystem.delete_dir(self.path)

    def unreadable(self, error: Exception, done: str = "read") -> UnreadableError:
        """The error for what the storage refused. It says nothing of damage, and advises to delete nothing."""
        return UnreadableError(f"{self}: cannot be {done}: {_reason(error)}; see to the access to it, then run again")

    @contextmanager
    def _reported(self, done: str) -> Iterator[None]:
        """Turns an OSError into an error that names this place and what could not be `done`."""
        try:
            yield
        except OSError as error:
            text = f"{self}: cannot be {done}: {_reason(error)}"
            if done == "written":
                raise StorageError(f"{text}; fix that and run again") from error
            if is_refusal(error):
                raise self.unreadable(error, done) from error
            raise InputError(text) from error


def _write_local(path: Path, source: BinaryIO) -> str:
    """Write a file by a rename. Returns its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    try:
        with draft.open("wb") as file:
            while part := source.read(1 << 20):
                file.write(part)
                digest.update(part)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """The error in one line, without the path, which the caller names."""
    text = (isinstance(error, OSError) and error.strerror) or one_line(error)
    # Arrow's own texts repeat the path.
    found = re.search(r"Detail: \[errno \d+\] (.+)$|path '.*' (is a directory)$", text)
    return next(filter(None, found.groups())) if found else text


_local_filesystem = cache(fs.LocalFileSystem)


@lru_cache(maxsize=64)
def _remote_filesystem(bucket_url: str) -> fs.FileSystem:
    try:
        return filesystem_at(bucket_url)
    except (pa.ArrowInvalid, ValueError) as error:
        raise ConfigError(f"{bucket_url}: {_reason(error)}; use {READ}") from error
    except OSError as error:
        raise InputError(f"{bucket_url}: cannot be reached: {_reason(error)}") from error
