"""The errors that a person can fix, each with its exit status. Their text is one line: file, value and fix."""

from collections.abc import Iterator
from contextlib import contextmanager


class VaalError(Exception):
    """Something outside the program is wrong."""

    exit_status = 1


class ConfigError(VaalError):
    """A setting or argument is wrong, or contradicts another."""

    exit_status = 2


class NotAcceptableError(VaalError):
    """The stage finished, but its result is not acceptable as configured."""

    exit_status = 3


class InputError(VaalError):
    """An input is missing, unreadable or not what it should be."""

    exit_status = 4


class UnreadableError(InputError):
    """The storage did not give a file that may well be whole: no permission, no connection, a broken disk."""


class BusyError(VaalError):
    """Another run is at work in this folder."""

    exit_status = 5


class StorageError(VaalError):
    """The campaign's storage refused a write."""


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """Ends the text of an InputError with the advice; not that of an UnreadableError: the file may be whole."""
    try:
        yield
    except UnreadableError:
        raise
    except InputError as error:
        raise InputError(f"{error}; {advice}") from error


@contextmanager
def asked_by(file: str) -> Iterator[None]:
    """Begins the text of a ConfigError or InputError with the file whose settings the body follows."""
    try:
        yield
    except (ConfigError, InputError) as error:
        kind = next(kind for kind in (ConfigError, UnreadableError, InputError) if isinstance(error, kind))
        raise kind(f"{file}: {error}") from error


def one_line(error: BaseException) -> str:
    """The text of another library's error without its line breaks."""
    return " ".join(str(error).split())
