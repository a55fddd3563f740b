"""What a reader finds of a data set on a disk or an object store, and how it reads an image of it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.config.texts import plural
from engine.errors import InputError
from engine.packing.entries import Entry, Sample
from engine.packing.fetching import read_file
from engine.packing.walking import Folder, all_below
from engine.packing.web_images import PackError
from engine.pool.formats import format_of
from engine.storage.location import Location

TRAIN, VAL, TEST = "train", "val", "test"


class Opened(NamedTuple):
    """A data set that was found.

    Attributes:
        parts: the images of train, test and, where there is one, val, in any order. `source` is the path of each below
            SOURCE, or else tells it from all others of its part; `label` is its class. `key` is empty where its number
            is to be it.
        classes: their names, in the data set's order.
        read: reads an image, and its mask as a companion. Raises InputError for one that is missing, or wrong.
        groups: classes that are taken for one another, if the data set says so.
        is_remote: whether the images are on an object store, where many are read at once.
        left_out: what lies among the files of the data set and is not converted, a line each.
        counts: images of each part in the official files of this layout, where it is not that of the data set's row.
    """

    parts: dict[str, list[Entry]]
    classes: list[str]
    read: Callable[[Entry], Sample]
    groups: tuple[list[str], ...] = ()
    is_remote: bool = False
    left_out: tuple[str, ...] = ()
    counts: dict[str, int] | None = None


def folder_with(source: Location, wanted: str, layout: str, within: tuple[str, ...] = ("",)) -> Location:
    """The folder that has `wanted` in it: SOURCE, or one of its folders `within`.

    Args:
        layout: what is looked for, in words.

    Raises InputError if there is none.
    """
    for name in within:
        base = source / name if name else source
        if (base / wanted).exists():
            return base
    if not source.exists():
        raise InputError(f"{source}: no such folder; give the one that holds {layout}")
    if source.info().is_file:
        raise InputError(f"{source}: a file; unpack it, and give the folder that holds {layout}")
    raise InputError(f"{source}: no {wanted} in it; give the folder that holds {layout}")


def below(source: Location, base: Location) -> str:
    """The path of a folder below SOURCE, with a slash at its end; empty for SOURCE itself."""
    return f"{base.url.removeprefix(source.url).strip('/')}/".lstrip("/")


def walked(folder: Location) -> Iterator[Folder]:
    """A folder and all below it, sorted by path. Raises InputError for names that are not UTF-8."""
    for found in all_below(folder):
        if found.unusable:
            place = folder / found.path if found.path else folder
            raise InputError(f"{place}: {plural(found.unusable, 'name')} not in UTF-8; rename the files")
        yield found


def content_of(place: Location) -> bytes:
    """A file. Raises InputError if it is missing, unreadable or too large."""
    try:
        return read_file(place)
    except PackError as error:
        raise InputError(f"{place}: {error}; unpack the data set again") from error


def image_of(source: Location, entry: Entry) -> Sample:
    """The image of an entry, its bytes as they are. Raises InputError for what is no image by its first bytes."""
    place = source / entry.source
    data = content_of(place)
    if not format_of(data[:16]):
        why = "no image by its first bytes" if data else "an empty file"
        raise InputError(f"{place}: {why}; unpack the data set again")
    return Sample(entry.key, entry.source, data, entry.label)
