"""Files by a pattern, on local disks and object stores."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import InputError, one_line
from engine.storage.location import Location


def is_pattern(location: Location) -> bool:
    """Whether a path has * ? or [, so that it may name several files."""
    return any(character in location.path for character in "*?[")


@contextmanager
def names_in_utf8(location: Location) -> Iterator[None]:
    """Raises InputError that names the file where the body finds one whose name Arrow cannot read."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"{location}: cannot be listed: {error.object!r} is not UTF-8; rename that file") from error


def matches_of(location: Location) -> list[Location]:
    """What matches a path with * ? or [, sorted; the location itself where it has none of them.

    Raises InputError if the storage cannot be listed.
    """
    if not is_pattern(location):
        return [location]
    if not location.is_listed:
        raise InputError(f"{location}: a web server has no list of its files; name them, as x-{{000..099}}.tar")
    from fsspec.implementations.arrow import ArrowFSWrapper

    scheme = location.url.removesuffix(location.path)
    filesystem = ArrowFSWrapper(location.filesystem)
    try:
        # A folder may have a bracket in its name, so that is looked for first.
        with names_in_utf8(location):
            matches = filesystem.glob(location.path.replace("[", "[[]")) or filesystem.glob(location.path)
    except OSError as error:
        raise InputError(f"{location}: cannot be listed: {one_line(error)}") from error
    return sorted((Location(scheme + str(match)) for match in matches), key=str)
