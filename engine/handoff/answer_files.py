"""The files of answers that a person names: files, folders and zip archives, on disks and object stores."""

import io
import pkgutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from engine.errors import InputError, one_line
from engine.handoff import VENDORS
from engine.handoff.exchange import AnswerFile
from engine.storage.location import Location

BUFFER_BYTES = 1 << 20
ARCHIVE = ".zip"
HEAD_BYTES = 1 << 16
"""So many first bytes say whose file it is."""


def answer_files(names: list[str], vendor: str) -> Iterator[AnswerFile]:
    """The files of a vendor's answers. In folders and archives other files are passed over.

    Raises InputError for what does not exist, a folder or archive without answers, and a file of another vendor.
    """
    for name in names:
        source = Location.of(name)
        info = source.info()
        if info.type == fs.FileType.NotFound:
            raise InputError(f"{source}: does not exist; give the file that the vendor filled in")
        if info.type == fs.FileType.Directory:
            found = list(_in_folder(source))
        elif source.name.lower().endswith(ARCHIVE):
            found = list(_in_archive(source))
        else:
            _require_own(file := _alone(source), vendor)
            yield file
            continue
        own = [file for file in found if _is_mine(file, vendor)]
        if not own and found:
            _require_own(found[0], vendor)
        if not own:
            raise InputError(f"{source}: no file of {vendor} in it; give what the vendor exported")
        yield from own


@contextmanager
def reported(place: str) -> Iterator[None]:
    """Turns what is found to be damaged in the middle of a file into an error that names it."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{place}: damaged: {one_line(error)}; fetch it again") from error


def _alone(source: Location) -> AnswerFile:
    folder = Location(source.url.rpartition("/")[0])
    return AnswerFile(source.url, source.name, partial(_open, source), partial(_open_beside, folder))


def _in_folder(folder: Location, below: str = "") -> Iterator[AnswerFile]:
    """The files of a folder and of the folders in it."""
    here = Location(f"{folder}/{below}".rstrip("/"))
    for name in here.children():
        if name.lower().endswith(ARCHIVE):
            yield from _in_archive(here / name)
            continue
        yield AnswerFile(f"{here}/{name}", f"{below}{name}", partial(_open, here / name), partial(_open_beside, here))
    for name in here.folders():
        yield from _in_folder(folder, f"{below}{name}/")


def _in_archive(source: Location) -> Iterator[AnswerFile]:
    stream = _open(source)
    try:
        archive = zipfile.ZipFile(stream)
        for name in archive.namelist():
            if name.lower().endswith(ARCHIVE):
                raise InputError(f"{source}/{name}: an archive in an archive; unpack it, and give the folder")
            if not name.endswith("/"):
                folder = name.rpartition("/")[0]
                opened = partial(_open_member, archive, source, "", name)
                yield AnswerFile(f"{source}/{name}", name, opened, partial(_open_member, archive, source, folder))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"{source}: not a whole zip archive: {one_line(error)}; fetch it again") from error


class _Stream(io.RawIOBase):
    """Arrow's stream as one of Python's, which has all that readers of text ask for."""

    def __init__(self, stream: pa.NativeFile) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return int(self._stream.readinto(buffer))

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        self._stream.close()
        super().close()


def _open(source: Location) -> IO[bytes]:
    try:
        return io.BufferedReader(_Stream(source.filesystem.open_input_file(source.path)), BUFFER_BYTES)
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {one_line(error)}") from error


def _open_beside(folder: Location, path: str) -> IO[bytes]:
    """What a vendor's file names, below its folder: nothing else of this machine is read."""
    parts = path.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or ":" in path:
        raise InputError(f"{folder}: {path!r} is not below it")
    return _open(folder / path)


def _open_member(archive: zipfile.ZipFile, source: Location, folder: str, path: str) -> IO[bytes]:
    name = f"{folder}/{path}".lstrip("/")
    try:
        return archive.open(name)
    except (KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"{source}/{name}: cannot be read: {one_line(error)}; unpack it, and give the folder"
        ) from error


def _is_mine(file: AnswerFile, vendor: str) -> bool:
    with reported(file.place), file.open() as stream:
        head = stream.read(HEAD_BYTES)
    function: Callable[[str, bytes], bool] = pkgutil.resolve_name(f"{VENDORS[vendor].module}:is_mine")
    return function(file.path, head)


def _require_own(file: AnswerFile, vendor: str) -> None:
    """Raises InputError for a file that another vendor is known to send. What nobody knows is the reader's matter."""
    if _is_mine(file, vendor):
        return
    others = [name for name in VENDORS if name != vendor and _is_mine(file, name)]
    if others:
        fix = " or ".join(f"--from {name}" for name in others)
        raise InputError(f"{file.place}: looks like a file of {' or '.join(others)}, not of {vendor}; use {fix}")
