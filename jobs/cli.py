"""The `vaal` command line: the list of its pages. A page imports slow libraries only when it runs."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer
from typer.exceptions import TyperException

from jobs.dataset import dataset
from jobs.demo import demo
from jobs.handoff import handoff
from jobs.ingest import ingest
from jobs.init import init
from jobs.labels import labels
from jobs.logs import asked_format
from jobs.pack import pack
from jobs.plan import plan
from jobs.pool import pool
from jobs.round import whole_round
from jobs.simulate import simulate
from jobs.stages import export, report, score, select, train
from jobs.status import status
from jobs.submit import submit
from jobs.terminal import Outcome, Terminal, as_command
from jobs.upkeep import clean, verify

app = typer.Typer(
    name="vaal",
    help="Active learning at web scale: by VAAL, by any other score, or by a model of your own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"vaal {version('vaal')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, help="Print the version.", callback=_version),
    ] = False,
) -> None:
    """Active learning at web scale: by VAAL, by any other score, or by a model of your own."""


PAGES: dict[str, Callable[..., Outcome]] = {
    "demo": demo,
    "pack": pack,
    "dataset": dataset,
    "init": init,
    "plan": plan,
    "round": whole_round,
    "train": train,
    "score": score,
    "select": select,
    "export": export,
    "report": report,
    "handoff": handoff,
    "ingest": ingest,
    "labels": labels,
    "pool": pool,
    "status": status,
    "verify": verify,
    "clean": clean,
    "simulate": simulate,
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


def complete_explain(arguments: list[str]) -> list[str]:
    """Turn `--explain ITEM_ID` into what the option parser knows: two words, the second of which is empty."""
    if "--explain" not in arguments:
        return arguments
    place = arguments.index("--explain") + 2
    if all(word.startswith("--") for word in arguments[place - 1 : place]):
        raise typer.BadParameter("give SHARD KEY, or the ITEM_ID of a pick", param_hint="--explain")
    is_alone = len(arguments) == place or (arguments[place : place + 1] and arguments[place].startswith("--"))
    return [*arguments[:place], "", *arguments[place:]] if is_alone else arguments


def main() -> None:
    """The command line of this process. A usage error is one line, as every other error is."""
    try:
        status = app(args=complete_explain(spread_pool(sys.argv[1:])), standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except TyperException as error:
        text = " ".join(error.format_message().replace("Value error, ", "").split())
        if text.startswith("No such option") and sys.argv[1:2] == ["submit"] and "--" not in sys.argv:
            text = (
                f"{text.removesuffix('.')}; options of the job's command come after --: vaal submit -- round CAMPAIGN"
            )
        if text:
            Terminal(json="--json" in sys.argv, log_format=asked_format(sys.argv)).failed(
                f"{text.removesuffix('.')}; see --help", 2
            )
        sys.exit(2)
    sys.exit(status)
