"""`vaal simulate`: whole campaigns against an oracle."""

from typing import Annotated

import typer

from engine.config.texts import parse_settings, plural
from jobs.terminal import AddressOption, Outcome, Terminal


def simulate(
    screen: Terminal,
    experiment: Annotated[
        str,
        typer.Argument(metavar="EXPERIMENT", help="The experiment: experiments/digits.toml."),
    ],
    out: Annotated[str, typer.Option(help="Folder or URL for campaigns, curves.parquet and report.html.")],
    workers: Annotated[
        int,
        typer.Option(min=0, help="Campaigns side by side; 0 is one a core, on pixels one, and on a cluster one a GPU."),
    ] = 0,
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Change the experiment, for example oracle.noise=0.1."),
    ] = [],
    address: AddressOption = "local",
) -> Outcome:
    """Compare strategies in whole campaigns against an oracle: which one needs fewer labels for the same accuracy?"""
    from engine.campaign.stages import Run
    from engine.simulation.findings import to_json
    from engine.simulation.simulate import simulate as simulate_all

    with screen.progress("simulate") as update:
        made = simulate_all(experiment, out, Run(address, update, screen.log), workers, parse_settings(settings))
    found = made.findings
    lines = {f"finding {number}": text for number, text in enumerate(found.sentences, 1)}
    facts = {
        **({"caution": found.caution} if found.caution else {}),
        **lines,
        "curves": made.curves,
        "report": made.report,
    }
    data = {**to_json(found), "curves": str(made.curves), "report": str(made.report)}
    return Outcome(f"{found.name}: {plural(found.seeds, 'seed')}, {len(found.strategies)} strategies", facts, data)
