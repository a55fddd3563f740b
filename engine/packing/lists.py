"""Images in a list: a CSV, JSON-lines or Parquet file of paths and URLs."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

from engine.errors import ConfigError, InputError
from engine.packing.entries import Entry, Options, OtherFiles, key_of, marked
from engine.packing.known_sources import KnownSources, digest, first_twice
from engine.packing.web_images import is_web
from engine.storage.location import Location, masked
from engine.tables.row_stream import FORMS, stream_rows
from engine.tables.values import is_blank, plain, text_of

COLUMNS = ("path", "url", "file", "filename", "image", "image_path", "image_url")
"""Names of the column with the paths or URLs; the first that is there is used."""


def entries(source: Location, options: Options, known: KnownSources, _others: OtherFiles) -> Iterator[Entry]:
    """The rows of a list that are not known, in its order. Paths are relative to the folder of the list.

    Raises InputError if the list is malformed, or has a row without a path or one that was there before.
    """
    folder, digests, lines, keys = source.url.rpartition("/")[0], list[bytes](), list[int](), set[bytes]()
    for line, row in stream_rows(_opened(source), str(source), FORMS[suffix_of(source)], [COLUMNS]):
        where = f"{source}: line {line}"
        column = next(name for name in COLUMNS if name in row)
        if is_blank(row[column]):
            raise InputError(f"{where}: no {column!r}; correct the row, or take it out")
        image = _place(text_of(row[column], f"{where}: {column}"), folder, where)
        digests.append(digest(image))
        lines.append(line)
        key = key_of(_below(image, folder))
        mark = digest(key)
        key = marked(key, image) if mark in keys else key
        keys.add(mark)
        if image not in known:
            yield Entry(key, image, label=_label_of(row, options, where))
    if found := first_twice(digests):
        before, again = (lines[place] for place in found)
        raise InputError(f"{source}: line {again}: the same image as in line {before}; keep one of them")


def suffix_of(source: Location) -> str:
    """The suffix of a file, lower case."""
    return source.name.rpartition(".")[2].lower()


def _opened(source: Location) -> IO[bytes]:
    if not source.is_local:
        return BytesIO(source.read_bytes())
    try:
        return Path(source.path).open("rb")
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}; correct the path") from error


def _place(text: str, folder: str, where: str) -> str:
    """A path or URL of a row, absolute."""
    if is_web(text):
        return text
    try:
        is_whole = "://" in text or text.startswith(("/", "~"))
        return Location.of(text if is_whole else f"{folder}/{text}").url
    except ConfigError as error:
        raise InputError(f"{where}: {error}") from error


def _below(image: str, folder: str) -> str:
    """An image's path for its key: below the list's folder where it is there, else without the scheme."""
    if image.startswith(f"{folder}/"):
        return image.removeprefix(f"{folder}/")
    return masked(image).partition("://")[2].partition("?")[0] if "://" in image else image.lstrip("/")


def _label_of(row: dict[str, object], options: Options, where: str) -> str | None:
    column = options.label_column or "label"
    if options.label_column and column not in row:
        raise InputError(f"{where}: no column {column!r}; --label-column names one of {', '.join(row)}")
    return plain(text_of(row.get(column), f"{where}: {column}")) or None
