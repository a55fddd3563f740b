"""The `vaal` command line: the list of its pages. A page imports slow libraries only when it runs."""

import sys
from collections.abc import Callable

import typer

from jobs.demo import demo
from jobs.ingest import ingest
from jobs.init import init
from jobs.labels import labels
from jobs.stages import export, report, score, select, train, whole_round
from jobs.status import status
from jobs.submit import submit
from jobs.terminal import Outcome, as_command

app = typer.Typer(
    name="vaal",
    help="Variational adversarial active learning at web scale.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PAGES: dict[str, Callable[..., Outcome]] = {
    "demo": demo,
    "init": init,
    "round": whole_round,
    "train": train,
    "score": score,
    "select": select,
    "export": export,
    "report": report,
    "ingest": ingest,
    "labels": labels,
    "status": status,
    "submit": submit,
}
for name, page in PAGES.items():
    app.command(name)(as_command(page))


def spread_pool(arguments: list[str]) -> list[str]:
    """Turn `init CAMPAIGN --pool a b c` into what the option parser knows: --pool a --pool b --pool c.

    This makes an unquoted glob work, which the shell has already expanded. Nothing changes where --pool comes before
    the campaign, because the campaign then looks like one more shard.
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
