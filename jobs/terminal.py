"""What a person or a program sees of a command: progress and errors on stderr, the result on stdout."""

import inspect
import json as json_format
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.campaign import stages
from engine.errors import ConfigError, VaalError, one_line
from engine.handoff import VENDORS
from jobs.logs import LOG, Format, LogFormatOption, set_up

OTHER_COLUMNS = 62
"""Characters of a progress line apart from its words."""
PLAIN_SECONDS = 10.0
"""Without a terminal, progress is one line in this time."""
MEASURED_SECONDS = 5.0
"""The time left is known once progress was measured for so long."""

MOST_CHARACTERS = 500
"""Of the text of an unforeseen error."""
HOME = Path(__file__).resolve().parents[1]
"""Where this program's own modules are."""

CampaignArgument = Annotated[
    str, typer.Argument(metavar="CAMPAIGN", help="The campaign's folder: a local path, s3:// or gs:// URI.")
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change an option of campaign.toml, for example train.epochs=3."),
]
AddressOption = Annotated[
    str, typer.Option(help="Ray to run on: local (a private one), auto, or a cluster's host:port.", metavar="ADDRESS")
]
WhoOption = Annotated[str, typer.Option(metavar="NAME", help="Who decides; the default is the user of this machine.")]
WhyOption = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the decision.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object; everything else on standard error.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
if TYPE_CHECKING:
    from engine.campaign.folder import Campaign

    VendorName: TypeAlias = str
    StageName: TypeAlias = str
else:
    VendorName = Literal[tuple(VENDORS)]
    StageName = Literal[tuple(stage.command for stage in stages.STAGES)]
# A list of choices is broken anywhere; a text is between words.
VENDOR_NAMES, STAGE_NAMES = ", ".join(VENDORS), ", ".join(stage.command for stage in stages.STAGES)
ToOption = Annotated[VendorName, typer.Option("--to", metavar="VENDOR", help=f"The labelling vendor: {VENDOR_NAMES}.")]
FromOption = Annotated[
    VendorName, typer.Option("--from", metavar="VENDOR", help=f"The vendor that made the files: {VENDOR_NAMES}.")
]


_COMMAND = re.compile(r"(?<![\w/.=-])vaal (?=([a-z]+)\b)")


def as_called(text: str) -> str:
    """A text for a person, whose `vaal ...` commands begin as this program was called, so that they can be copied."""
    from jobs.cli import PAGES

    # VAAL is also the name of a score: "add vaal to the list".
    return _COMMAND.sub(lambda found: f"{_program(sys.argv[0])} " if found[1] in PAGES else found[0], text)


@cache
def _program(called: str) -> str:
    script = Path(called)
    if script.parts[-2:] == ("jobs", "__main__.py"):
        return "python -m jobs"
    found = shutil.which("vaal")
    if script.name != "vaal" or (not script.is_absolute() and "/" not in called) or (found and script.samefile(found)):
        return "vaal"
    here = Path.cwd()
    return str(script.relative_to(here)) if script.is_relative_to(here) else called


def when_closed(rule: str | float) -> str:
    """When a round ends, by labels.close_when: "all are" or "90% are" settled."""
    return "all are" if rule == "all" else f"{rule:.0%} are"


class Outcome(NamedTuple):
    """What a command made and where: a title and facts for a person, data for a program, and the exit status. A fact
    that is a list has a line for each.

    `above` is anything that rich can print; a person sees it first.
    """

    title: str
    facts: dict[str, Any]
    data: dict[str, Any]
    exit_status: int = 0
    above: Any = None


class Terminal:
    """The two streams of one command. `campaign` is the one that it names, if any, for `log_format` json."""

    def __init__(self, *, json: bool, log_format: Format = "text", campaign: str = "") -> None:
        self._json, self._log_format = json, log_format
        url = _url(campaign) if log_format == "json" else None
        self._where: dict[str, Any] = {"campaign": url, "round": None, "stage": None}
        self._counts: dict[str, Any] = {}
        # Names may hold colons: `:cat:` is no picture of one.
        self._out = Console(highlight=False, soft_wrap=True, emoji=False)
        self._log = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        set_up(log_format, self._log, self._where)

    def log(self, line: str) -> None:
        """Log a line about the work in progress."""
        self._event("log", line)

    def _event(self, event: str, line: str, **data: Any) -> None:
        counts = {"counts": dict(self._counts)} if self._counts and event != "log" else {}
        LOG.info("%s", as_called(line), extra={"event": event, "data": {**data, **counts}})

    def failed(self, line: str, exit_status: int, *, has_traceback: bool = False) -> None:
        """Log the error that a command ends with; with --json it is also an object on standard output."""
        data = {"exit_status": exit_status}
        LOG.error("%s", as_called(line), exc_info=has_traceback, extra={"event": "error", "data": data})
        # Standard output itself may be what failed.
        with suppress(OSError):
            if self._json:
                self._dump({"error": line, "exit_status": exit_status})

    def _dump(self, data: dict[str, Any]) -> None:
        json_format.dump(data, sys.stdout, ensure_ascii=False)
        sys.stdout.write("\n")
        sys.stdout.flush()

    def write(self, text: str) -> None:
        """Pass on the output of another program."""
        stream = sys.stderr if self._json else sys.stdout
        stream.write(text)
        stream.flush()

    def show(self, outcome: Outcome) -> None:
        """Print an outcome for a person; with --json, nothing."""
        if self._json or not outcome.title:
            return
        if outcome.above:
            self._out.print(outcome.above)
        self._out.print(f"[bold green]{escape(outcome.title)}[/bold green]")
        width = max(map(len, outcome.facts), default=0)
        # Printed as lines and not as a table: a path that is cut or wrapped cannot be copied.
        for name, value in outcome.facts.items():
            for number, part in enumerate(value if isinstance(value, list) else [value]):
                text = f"{part:,}" if isinstance(part, int) else as_called(str(part))
                self._out.print(f"  [dim]{escape(('' if number else name).ljust(width))}[/dim]  {escape(text)}")

    def result(self, outcome: Outcome) -> None:
        """Print the outcome of the whole command: with --json one JSON object, else as `show` does."""
        self.show(outcome)
        if self._json:
            self._dump(outcome.data)

    @contextmanager
    def running(self, command: str, campaign: "Campaign", address: str = "local") -> Iterator[stages.Run]:
        """The run of a stage, whose progress is shown. Lines are about it until its end."""
        self._where |= {"campaign": campaign.home.url, "round": campaign.round, "stage": command}
        self._counts.clear()
        self._event("begin", command)
        with self.progress(command) as update:
            yield stages.Run(address, update, self.log, self._measure)
        self._event("end", command)
        # After an error the stage stays: the error is about it.
        self._where["stage"] = None

    def _measure(self, name: str, value: float, /, **tags: str) -> None:
        if name == "vaal_stage":
            return
        if tags:
            self._counts.setdefault(name, {})[" ".join(tags.values())] = value
        else:
            self._counts[name] = value

    @contextmanager
    def progress(self, title: str) -> Iterator[stages.Progress]:
        """Show a bar with the time left. The body calls the update that it is given."""
        if not self._log.is_terminal or self._log_format == "json":
            yield self._plain_progress(title)
            return
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        # Words that do not fit are cut here, because rich would shrink every column, the bar and the numbers too.
        room = max(8, self._log.width - OTHER_COLUMNS)
        with Progress(*columns, console=self._log, transient=True) as bar:
            task = bar.add_task(title, total=1.0, words="starting")
            yield lambda share, words: bar.update(task, completed=share, words=words[:room])

    def _plain_progress(self, title: str) -> stages.Progress:
        begin: tuple[float, float] | None = None
        shown = time.monotonic()

        def update(share: float, words: str) -> None:
            nonlocal begin, shown
            now = time.monotonic()
            begin = begin or (now, share)
            if now - shown >= PLAIN_SECONDS and share > begin[1]:
                shown = now
                since, line = now - begin[0], f"{title} {share:.0%} {words}"
                left = round(since * (1 - share) / (share - begin[1])) if since >= MEASURED_SECONDS else None
                line += f", {left} s left" if left is not None else ""
                self._event("progress", line, share=round(share, 4), seconds_left=left)

        return update


def _url(campaign: str) -> str | None:
    """The campaign as everything else names it; None for one that cannot be, which may hold a password."""
    from engine.storage.location import Location

    try:
        return Location.of(campaign).url
    except ConfigError:
        return None


def unforeseen(error: BaseException) -> str:
    """One line on an error that no part of the program has words for."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}; fix that and run the same command again"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(HOME)] or frames
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "nowhere"
    text = one_line(error)[:MOST_CHARACTERS]
    return f"unforeseen {type(error).__name__} at {place}: {text}; run it again with --debug, and report what it prints"


def as_command(page: Callable[..., Outcome]) -> Callable[..., None]:
    """A page as a command: --json and --debug are added, its outcome is printed, an error is one line with its status.

    A page is called with a `Terminal` and with the options in its signature.
    """

    @wraps(page)
    def command(*, json: bool, debug: bool, log_format: Format = "text", **options: Any) -> None:
        screen = Terminal(json=json, log_format=log_format, campaign=str(options.get("campaign") or ""))
        try:
            outcome = page(screen, **options)
            # Who reads it may have seen enough, as `head` has: all that was asked for is done. rich ends the process.
            with suppress(BrokenPipeError, SystemExit):
                screen.result(outcome)
        except VaalError as error:
            # Ray raises a worker's error as a subclass, whose text is the worker's whole traceback.
            original = getattr(error, "cause", error)
            screen.failed(str(original), original.exit_status, has_traceback=debug)
            raise typer.Exit(original.exit_status) from error
        except KeyboardInterrupt as error:
            screen.failed("interrupted; completed work is kept, run the same command again to continue", 1)
            raise typer.Exit(1) from error
        except (Exception, SystemExit) as error:
            # Code of others that ends the process has not done what was asked for.
            screen.failed(unforeseen(error), 1, has_traceback=debug)
            raise typer.Exit(1) from error
        raise typer.Exit(outcome.exit_status)

    _, *own = inspect.signature(page).parameters.values()
    options = (("json", False, JsonOption), ("debug", False, DebugOption), ("log_format", "text", LogFormatOption))
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
        for name, default, option in options
    ]
    command.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    return command
