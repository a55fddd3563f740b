"""The files of answers that a person names: files, folders and zip archives, on disks and object stores."""

import io
import pkgutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

from pyarrow import fs

from engine.errors import InputError, one_line
from engine.handoff import VENDORS
from engine.handoff.exchange import AnswerFile
from engine.storage.location import Location

BUFFER_BYTES = 1 << 20
HEAD_BYTES = 1 << 16
"""So many first bytes say whose file it is."""
MOST_LOOKED_AT = 100
"""Files of a folder or an archive that are asked whose they are, where none is the vendor's."""
BOMB_BYTES, BOMB_RATIO = 64 << 20, 200
"""A member of an archive that is larger, and packed so many times smaller, is no text that people or programs wrote:
JSON with the same words in every row is packed 20 to 60 times smaller."""
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
"""What reading a damaged, encrypted or strangely packed archive raises."""


def answer_files(
    names: list[str], vendor: str, sent: Callable[[list[AnswerFile]], str] = lambda _: ""
) -> Iterator[AnswerFile]:
    """The files of a vendor's answers. In folders and archives other files are passed over.

    Args:
        sent: names the first of some files that is what was sent, not what came back.

    Raises InputError for what does not exist, a folder or archive without answers, and a file of another vendor.
    """
    for name in names:
        source, found = Location.of(name), files_in(name)
        own = [file for file in found if _is_mine(file, vendor)]
        if not own and (path := sent(found)):
            raise InputError(f"{source}: {was_sent(path, vendor)}")
        if not own:
            for file in found[:MOST_LOOKED_AT]:
                _require_own(file, vendor)
            if [file.place for file in found] != [source.url]:
                raise InputError(f"{source}: no file of {vendor} in it; give what the vendor exported")
        # A file that nobody knows is the reader's matter.
        yield from own or found


def was_sent(path: str, vendor: str) -> str:
    """The error for what was sent."""
    fix = "a table with item_id and label" if vendor == "generic" else f"what {vendor} exported"
    return f"this is what was sent ({path} is a task file as it went out), without an answer; give {fix}"


def files_in(name: str) -> list[AnswerFile]:
    """The file of this name, or those of a folder or an archive. Raises InputError for what does not exist."""
    source = Location.of(name)
    info = source.info()
    if info.type == fs.FileType.NotFound:
        raise InputError(f"{source}: does not exist; give the file that the vendor filled in")
    if info.type == fs.FileType.Directory:
        return list(_in_folder(source))
    return list(_in_archive(source)) if _is_archive(source.name) else [_alone(source)]


def _alone(source: Location) -> AnswerFile:
    folder = Location(source.url.rpartition("/")[0])
    return AnswerFile(source.url, source.name, partial(_open, source), partial(_open_beside, folder))


def _is_archive(name: str) -> bool:
    return name.lower().endswith(".zip")


def _in_folder(folder: Location, below: str = "") -> Iterator[AnswerFile]:
    """The files of a folder, of the folders in it, and of the archives in these."""
    here = Location(f"{folder}/{below}".rstrip("/"))
    for name in here.children():
        if _is_archive(name):
            yield from _in_archive(here / name)
        else:
            opened = partial(_open, here / name)
            yield AnswerFile(f"{here}/{name}", f"{below}{name}", opened, partial(_open_beside, here))
    for name in here.folders():
        yield from _in_folder(folder, f"{below}{name}/")


def _in_archive(source: Location) -> Iterator[AnswerFile]:
    """The files of an archive. It is not unpacked, so that its names may be what they like."""
    try:
        archive = zipfile.ZipFile(_open(source))
    except _DAMAGE as error:
        raise InputError(f"{source}: not a whole zip archive: {one_line(error)}; fetch it again") from error
    for member in archive.infolist():
        if member.is_dir():
            continue
        place = f"{source}/{member.filename}"
        if _is_archive(member.filename):
            raise InputError(f"{place}: an archive in an archive; unpack the outer one, and give its folder")
        folder = member.filename.rpartition("/")[0]
        opened = partial(_open_member, archive, member, place)
        yield AnswerFile(place, member.filename, opened, partial(_open_beside_member, archive, source, folder))


class _Stream(io.RawIOBase):
    """A stream of Arrow, or of a member of an archive, as one of Python's, which has all that readers of text ask for.
    What cannot be read is an InputError that names the place.

    Args:
        stream: a pa.NativeFile or a zipfile.ZipExtFile.
    """

    def __init__(self, stream: Any, place: str, fix: str) -> None:
        super().__init__()
        self._stream: Any = stream
        self._place, self._fix = place, fix

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._stream.readinto(buffer))
        except _DAMAGE as error:
            raise InputError(f"{self._place}: cannot be read: {one_line(error)}; {self._fix}") from error

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return int(self._stream.seek(offset, whence))
        except ValueError as error:
            # As Python's own files say it: readers of archives try whether there is something.
            raise OSError(str(error)) from error

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        self._stream.close()
        super().close()


def _open(source: Location) -> IO[bytes]:
    try:
        stream = _Stream(source.filesystem.open_input_file(source.path), str(source), "run again, or fetch it again")
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {one_line(error)}; give the file that the vendor made") from error
    return io.BufferedReader(stream, BUFFER_BYTES)


def _open_beside(folder: Location, path: str) -> IO[bytes]:
    return _open(folder / path)


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str) -> IO[bytes]:
    if member.file_size > max(BOMB_BYTES, BOMB_RATIO * member.compress_size):
        sizes = f"{member.compress_size:,} bytes that unpack to {member.file_size:,}"
        raise InputError(f"{place}: {sizes}; if that is right, unpack the archive, and give its folder")
    fix = "fetch the archive again, or unpack it and give its folder"
    try:
        stream = _Stream(archive.open(member), place, fix)
    except _DAMAGE as error:
        raise InputError(f"{place}: cannot be read: {one_line(error)}; {fix}") from error
    return io.BufferedReader(stream, BUFFER_BYTES)


def _open_beside_member(archive: zipfile.ZipFile, source: Location, folder: str, path: str) -> IO[bytes]:
    name = f"{folder}/{path}".lstrip("/")
    try:
        member = archive.getinfo(name)
    except KeyError as error:
        raise InputError(f"{source}/{name}: is not in the archive") from error
    return _open_member(archive, member, f"{source}/{name}")


def _is_mine(file: AnswerFile, vendor: str) -> bool:
    with file.open() as stream:
        head = stream.read(HEAD_BYTES)
    function: Callable[[str, bytes], bool] = pkgutil.resolve_name(f"{VENDORS[vendor].module}:is_mine")
    return function(file.path, head)


def _require_own(file: AnswerFile, vendor: str) -> None:
    """Raises InputError for a file that another vendor is known to send."""
    others = [name for name in VENDORS if name != vendor and _is_mine(file, name)]
    if others:
        fix = " or ".join(f"--from {name}" for name in others)
        raise InputError(f"{file.place}: looks like a file of {' or '.join(others)}, not of {vendor}; use {fix}")
