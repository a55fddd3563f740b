"""The lines that a command logs on standard error: words for a person, or one JSON object each for a program."""

import json
import logging
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

LOG = logging.getLogger("vaal")
Format = Literal["text", "json"]
LogFormatOption = Annotated[
    Format,
    typer.Option(
        "--log-format", metavar="FORMAT", help="Log lines on standard error as text, or as a JSON object each."
    ),
]
FOR_PROGRAMS = ("begin", "end")
"""Events that a person sees otherwise: a bar, and what the command made."""


class JsonLines(logging.Formatter):
    """One JSON object a record: time in UTC, level, campaign, round, stage, event, message, and what `data` it has.

    `where` has the campaign, the round and the stage, and may change.
    """

    def __init__(self, where: dict[str, Any]) -> None:
        super().__init__()
        self._where = where

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._where,
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
            **getattr(record, "data", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _ForPrograms(logging.Handler):
    def __init__(self, console: Console, where: dict[str, Any]) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(JsonLines(where))

    def emit(self, record: logging.LogRecord) -> None:
        self._console.file.write(self.format(record) + "\n")
        self._console.file.flush()


class _ForPeople(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "log") in FOR_PROGRAMS:
            return
        if record.exc_info and record.exc_info[1]:
            traceback.print_exception(record.exc_info[1], file=self._console.file)
        text = escape(record.getMessage())
        is_error = record.levelno >= logging.ERROR
        self._console.print(f"[bold red]error:[/bold red] {text}" if is_error else f"[dim]{text}[/dim]")


def set_up(log_format: Format, console: Console, where: dict[str, Any]) -> None:
    """Log to a console. As JSON, so are warnings of Python and of libraries."""
    handler = _ForPrograms(console, where) if log_format == "json" else _ForPeople(console)
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)
    if log_format == "json":
        logging.getLogger().handlers = [handler]
        logging.captureWarnings(capture=True)


def asked_format(words: Sequence[str]) -> Format:
    """The format that a command line asks for which cannot be read otherwise."""
    is_json = "--log-format=json" in words or ("--log-format", "json") in pairwise(words)
    return "json" if is_json else "text"
