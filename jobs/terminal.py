"""What a person or a program sees of a command: progress and errors on stderr, the result on stdout."""

import json as json_format
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.errors import VaalError
from engine.handoff import VENDORS

OTHER_COLUMNS = 62
"""Characters of a progress line beside its words."""
PLAIN_SECONDS = 10.0
"""Without a terminal, progress is a line every so often."""

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
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, and all else on standard error.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
if TYPE_CHECKING:
    VendorName: TypeAlias = str
else:
    VendorName = Literal[tuple(VENDORS)]
Update = Callable[[float, str], None]
"""Takes the share that is done, 0 to 1, and a few words."""


class Outcome(NamedTuple):
    """What a command made and where: a title and facts for a person, data for a program."""

    title: str
    facts: dict[str, Any]
    data: dict[str, Any]


class Terminal:
    """The two streams of one command."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._out = Console(stderr=json, highlight=False, soft_wrap=True)
        self._log = Console(stderr=True, highlight=False, soft_wrap=True)

    def log(self, line: str) -> None:
        """A line about what is going on."""
        self._log.print(f"[dim]{escape(line)}[/dim]")

    def error(self, line: str) -> None:
        self._log.print(f"[bold red]error:[/bold red] {escape(line)}")

    def show(self, renderable: Any) -> None:
        """Something for a person to read at the end; not part of the JSON."""
        self._out.print(renderable)

    def write(self, text: str) -> None:
        """Output of another program, as it is."""
        stream = sys.stderr if self._json else sys.stdout
        stream.write(text)
        stream.flush()

    def step(self, outcome: Outcome) -> None:
        """The end of one stage of several; not part of the JSON, which `result` prints at the end."""
        if not self._json:
            self.result(outcome)

    def result(self, outcome: Outcome) -> None:
        """The end of a command: a small table, or one JSON object."""
        if self._json:
            json_format.dump(outcome.data, sys.stdout, ensure_ascii=False)
            sys.stdout.write("\n")
            return
        self._out.print(f"[bold green]{escape(outcome.title)}[/bold green]")
        width = max(map(len, outcome.facts), default=0)
        # Printed as lines and not as a table: a path that is cut or wrapped cannot be copied.
        for name, value in outcome.facts.items():
            text = f"{value:,}" if isinstance(value, int) else str(value)
            self._out.print(f"  [dim]{escape(name.ljust(width))}[/dim]  {escape(text)}")

    @contextmanager
    def progress(self, title: str) -> Iterator[Update]:
        """A bar with time left; the body calls the update it is given."""
        if not self._log.is_terminal:
            yield self._plain_progress(title)
            return
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        # What does not fit is cut here: left to itself, rich shrinks every column alike, the bar and the numbers too.
        room = max(8, self._log.width - OTHER_COLUMNS)
        with Progress(*columns, console=self._log, transient=True) as bar:
            task: TaskID = bar.add_task(title, total=1.0, words="starting")
            yield lambda share, words: bar.update(task, completed=share, words=words[:room])

    def _plain_progress(self, title: str) -> Update:
        first: list[tuple[float, float]] = []
        shown = time.monotonic()

        def update(share: float, words: str) -> None:
            nonlocal shown
            now = time.monotonic()
            if not first:
                first.append((now, share))
            elif now - shown >= PLAIN_SECONDS and share > first[0][1]:
                shown = now
                left = (now - first[0][0]) * (1 - share) / (share - first[0][1])
                self.log(f"{title} {share:.0%} {words}, {left:.0f} s left")

        return update


@contextmanager
def terminal(*, json: bool, debug: bool) -> Iterator[Terminal]:
    """Turns errors into one line and the exit status that belongs to them."""
    screen = Terminal(json=json)
    try:
        yield screen
    except VaalError as error:
        # Ray hands on a worker's error as a subclass whose text is the worker's whole traceback.
        original = getattr(error, "cause", error)
        if debug:
            traceback.print_exc()
        screen.error(str(original))
        raise typer.Exit(original.exit_status) from error
    except KeyboardInterrupt as error:
        screen.error("interrupted; nothing that was complete is lost, run the same command again to go on")
        raise typer.Exit(1) from error
