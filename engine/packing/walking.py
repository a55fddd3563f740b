"""The files of a source: a folder with all below it, a pattern, or one file; on a disk or an object store."""

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs

from engine.errors import InputError, one_line
from engine.storage.globs import matches_of
from engine.storage.location import Location
from engine.storage.retries import retried

GLOB = "*?["


class Folder(NamedTuple):
    """A folder of a source: its path below the source's, "" for that itself; the size in bytes of each file by its
    name, sorted; and how many names cannot be used, because they are not UTF-8."""

    path: str
    files: dict[str, int]
    unusable: int = 0

    def below(self, name: str) -> str:
        """The path of a file of this folder below the source's."""
        return f"{self.path}/{name}" if self.path else name


def base_of(source: Location) -> Location:
    """The folder that the paths of a source's files are below. It stays the same when files are added.

    Raises InputError if there is no such source.
    """
    if any(character in source.path for character in GLOB):
        first = next(place for place, character in enumerate(source.url) if character in GLOB)
        return Location(source.url[:first].rpartition("/")[0])
    info = source.info()
    if info.type == fs.FileType.NotFound:
        raise InputError(f"{source}: no such file or folder; give a folder, a list, a Parquet file or a video")
    return source if info.type == fs.FileType.Directory else Location(posixpath.dirname(source.url))


def folders_of(source: Location) -> Iterator[Folder]:
    """The folders of a source with their files, sorted by path. Hidden files and folders are passed over.

    Raises InputError if the storage cannot be listed.
    """
    base = base_of(source)
    if base == source:
        yield from all_below(base)
        return
    found: dict[str, dict[str, int]] = {}
    matches = matches_of(source)
    try:
        infos = base.filesystem.get_file_info([match.path for match in matches])
    except OSError as error:
        raise InputError(f"{source}: cannot be looked up: {one_line(error)}") from error
    for match, info in zip(matches, infos, strict=True):
        folder, _, name = match.url.removeprefix(f"{base.url.rstrip('/')}/").rpartition("/")
        if info.is_file and not name.startswith("."):
            found.setdefault(folder, {})[name] = info.size
    for folder, files in sorted(found.items()):
        yield Folder(folder, dict(sorted(files.items())))


def all_below(folder: Location) -> Iterator[Folder]:
    """As `folders_of` a folder, whose name may have the characters of a pattern."""
    yield from _walk(folder, "", frozenset())


def _walk(base: Location, path: str, above: frozenset[tuple[int, int]]) -> Iterator[Folder]:
    """A folder and all below it. `above` are the device and inode of each folder that it is in."""
    folder = base / path if path else base
    if folder.is_local:
        identity = _identity(folder)
        if identity in above:
            # A link that leads back.
            return
        above |= {identity}
    found = _local(folder) if folder.is_local else _remote(folder)
    unusable = found.pop("", 0)
    yield Folder(path, {name: size for name, size in sorted(found.items()) if size >= 0}, unusable)
    for name in sorted(name for name, size in found.items() if size < 0):
        yield from _walk(base, f"{path}/{name}" if path else name, above)


def _identity(folder: Location) -> tuple[int, int]:
    try:
        status = Path(folder.path).stat()
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}; fix that and run again") from error
    return status.st_dev, status.st_ino


def _local(folder: Location) -> dict[str, int]:
    """The size of each file by its name, -1 for a folder; under "" the number of names that are not UTF-8."""
    found: dict[str, int] = {}
    try:
        with os.scandir(folder.path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in entry.name):
                    found[""] = found.get("", 0) + 1
                elif entry.is_dir():
                    found[entry.name] = -1
                elif entry.is_file():
                    found[entry.name] = entry.stat().st_size
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}; fix that and run again") from error
    return found


def _remote(folder: Location) -> dict[str, int]:
    selector = fs.FileSelector(folder.path, allow_not_found=True)
    try:
        infos = retried(lambda: folder.filesystem.get_file_info(selector))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{folder}: cannot be listed: {one_line(error)}") from error
    visible = (info for info in infos if not info.base_name.startswith("."))
    # Stores list the marker of a folder as a file without a name.
    return {info.base_name: info.size if info.is_file else -1 for info in visible if info.base_name}
