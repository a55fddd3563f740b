"""The `vaal` command line: the list of its pages. Whatever is slow to import is imported inside a page."""

import sys
from collections.abc import Callable

import typer

from jobs.demo import demo
from jobs.ingest import ingest
from jobs.init import init
from jobs.stages import export, report, score, select, train, whole_round
from jobs.status import status
from jobs.submit import submit

app = typer.Typer(
    name="vaal",
    help="Variational adversarial active learning at web scale.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PAGES: dict[str, Callable[..., None]] = {
    "demo": demo,
    "init": init,
    "round": whole_round,
    "train": train,
    "score": score,
    "select": select,
    "export": export,
    "report": report,
    "ingest": ingest,
    "status": status,
    "submit": submit,
}
for name, page in PAGES.items():
    app.command(name)(page)


def spread_pool(arguments: list[str]) -> list[str]:
    """`init CAMPAIGN --pool a b c` as the option parser knows it: --pool a --pool b --pool c.

    So an unquoted glob, which the shell has already expanded, means what it says. Nothing is changed when --pool
    comes before the campaign, for then the campaign could not be told from a shard.
    """
    if arguments[:1] != ["init"] or len(arguments) < 2 or arguments[1].startswith("-"):
        return arguments
    spread: list[str] = []
    in_pool = False
    for argument in arguments:
        if argument.startswith("-"):
            in_pool = argument == "--pool"
        elif in_pool and spread[-1] != "--pool":
            spread.append("--pool")
        spread.append(argument)
    return spread


def main() -> None:
    """The console script."""
    app(args=spread_pool(sys.argv[1:]))
