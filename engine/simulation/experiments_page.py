"""The page about experiments that others published: what they report, what was run here, and what a run would cost.

It is made from files alone: published figures (experiments/published.toml), the experiments, and curves.
"""

import tomllib
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from engine.config.section import Section
from engine.config.texts import explain, plural
from engine.errors import ConfigError, InputError, one_line
from engine.simulation.comparisons import Difference, differences, least_seeds
from engine.simulation.curve_charts import Curves, both_charts
from engine.simulation.experiment import Experiment, read_experiment
from engine.simulation.findings import (
    above_random,
    bands_of,
    bought_of,
    caution_on,
    metric_name,
    signed,
    task_name,
    values_by_strategy,
    verdict,
)
from engine.simulation.measuring import made_by
from engine.storage.location import Location

SURE = {
    "read": "read in the source",
    "figure": "read off a figure",
    "memory": "from memory, not verified",
    "unsafe": "unsafe: its source doubts it",
}
HEAD = """# Experiments: the paper's figures, and ours

Made by a command from the curves of `vaal simulate`; do not edit it:

    python -m jobs.experiments docs/experiments.md experiments/results/*.parquet

Each figure has what others report, with the source and how sure that is, and what was run here: means over seeds, and
half the width of a band that holds the whole true curve in 95 of 100 simulations. The last column is the mean
difference from random over the whole curve, with its 95 % interval over paired seeds, and what a test over all
strategies together says of it. `not shown` is no proof that there is none, and an interval without 0 may have it: the
more strategies are compared, the more one of them looks good by chance. Charts have the curves on the left, and on the
right the differences from random with their bands. Ours are small versions, with fewer and smaller images and a
smaller task model: they compare strategies with one another, and their heights with nobody's. What was not run has its
plan, an estimate unless it says otherwise. [simulation.md](simulation.md) says how an experiment runs,
[datasets.md](datasets.md) how to get the data.

Out of scope: parts of an image as what is bought (regions, superpixels). A campaign picks, sends and pays whole images,
as vendors price them, and an experiment is a whole campaign.
"""


class Curve(Section):
    """What a source reports of a method: values in %, at shares of the pool in %, or one value of the whole."""

    source: str
    method: str
    at: list[float]
    values: Annotated[list[float], Field(min_length=1)]
    sure: Literal["read", "figure", "memory", "unsafe"]


class Figure(Section):
    """A published comparison, and the experiments that are its like here, the small one first."""

    title: str
    experiments: list[str]
    note: str = ""
    curves: list[Curve] = Field(default=[])


class Published(Section):
    """The file of published figures."""

    figures: list[Figure]


class Ran(NamedTuple):
    """The curves of an experiment, and by task model and strategy the mean difference from random over the whole curve,
    in points."""

    curves: pa.Table
    areas: dict[str, dict[str, Difference]]


def page_of(experiments: Location, curves: dict[str, pa.Table], charts: str = "experiments") -> str:
    """The page as Markdown.

    Args:
        experiments: the folder of the experiments and of published.toml.
        curves: tables of `simulate.CURVES_SCHEMA` by the name of the experiment.
        charts: the folder of the charts, beside the page.

    Raises:
        InputError: a file is missing, or curves are not of their experiment, all strategies in the same seeds.
        ConfigError: published.toml is wrong, or curves are of an experiment that no figure names.
    """
    figures = _read(experiments / "published.toml").figures
    named = {name for figure in figures for name in figure.experiments}
    if unknown := sorted(set(curves) - named):
        raise ConfigError(f"{experiments}/published.toml: no figure has the experiment {unknown[0]}; add it to one")
    for name, table in curves.items():
        _require_paired(name, table)
        if fault := _fault_of(name, table, read_experiment(f"{experiments}/{name}.toml")):
            raise InputError(f"{name}.parquet: not of experiments/{name}.toml: {fault}")
    ran = {
        name: Ran(table, {task: _areas_of(table, task) for task in _tasks_of(table)}) for name, table in curves.items()
    }
    parts = [HEAD, *_summary(ran), *("\n".join(_section(figure, experiments, ran, charts)) for figure in figures)]
    return "\n".join(parts)


def _read(file: Location) -> Published:
    try:
        return Published.model_validate(tomllib.loads(file.read_bytes().decode()))
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, [])}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML: {one_line(error)}; correct it") from error


def _summary(ran: dict[str, Ran]) -> Iterator[str]:
    """What was shown of which strategy, over all experiments."""
    if not ran:
        return
    yield "## What was shown here\n"
    yield "| experiment | seeds | shown ahead of random | shown behind it |\n|---|---|---|---|"
    for name, one in ran.items():
        ahead, behind = (_shown(one.areas, side) or "–" for side in (1, -1))
        yield f"| `{name}` | {len(pc.unique(one.curves['seed']))} | {ahead} | {behind} |"
    yield ""


def _shown(areas: dict[str, dict[str, Difference]], side: int) -> str:
    """The strategies that are shown ahead of random, or with side -1 behind it, with the points by task model."""
    found: dict[str, list[str]] = {}
    for task, gaps in areas.items():
        for strategy, gap in gaps.items():
            if gap.is_shown and side * gap.mean.value > 0:
                found.setdefault(strategy, []).append(f"{signed(gap.mean.value)} ({task_name(task)})")
    return "; ".join(f"{strategy} {', '.join(parts)}" for strategy, parts in found.items())


def _section(figure: Figure, experiments: Location, ran: dict[str, Ran], charts: str) -> Iterator[str]:
    yield f"## {figure.title}\n"
    if figure.note:
        yield f"{figure.note}\n"
    if figure.curves:
        yield "| published by | method | at, % of the pool | value | how sure |\n|---|---|---|---|---|"
        for one in figure.curves:
            at, values = (", ".join(f"{value:g}" for value in row) or "–" for row in (one.at, one.values))
            yield f"| {one.source} | {one.method} | {at} | {values} | {SURE[one.sure]} |"
        yield ""
    for name in figure.experiments:
        if name in ran:
            yield from _ours(name, ran[name], charts)
        else:
            yield f"Not run: `experiments/{name}.toml`. {_plan(experiments / f'{name}.toml')}\n"


def _require_paired(name: str, curves: pa.Table) -> None:
    """Raises InputError where the strategies and task models, which are compared, have not the same points."""
    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for row in curves.filter(pc.is_valid(curves["task"])).select(["strategy", "task", "seed", "round"]).to_pylist():
        found.setdefault((row["strategy"], row["task"]), set()).add((row["seed"], row["round"]))
    points = found[next(iter(found))] if found else set()
    if odd := [strategy for (strategy, _), own in found.items() if own != points]:
        why = f"{odd[0]} has not the seeds and rounds of the others; give curves.parquet as vaal simulate writes it"
        raise InputError(f"{name}.parquet: {why}")


def _fault_of(name: str, curves: pa.Table, experiment: Experiment) -> str:
    """Why the curves are not of the experiment, by its strategies, task models, name and batches; empty if they are."""
    planned = [one.name for one in experiment.strategies]
    if odd := sorted({*pc.unique(curves["strategy"]).to_pylist()} ^ {*planned}):
        return f"strategy {odd[0]} is in one of them alone"
    if odd := sorted({*_tasks_of(curves)} ^ {*experiment.tasks}):
        return f"task model {odd[0]} is in one of them alone"
    # Those of earlier versions do not say it.
    if (made := made_by(curves)) not in ("", f"{name}.toml"):
        return f"made by {made}"
    steps = np.diff(bought_of(curves))
    if len(steps) > experiment.rounds or (steps != experiment.budget).any():
        batches = ", ".join(f"{step:g}" for step in steps)
        return f"batches of {batches}, and not {experiment.rounds} of {experiment.budget}"
    return ""


def _plan(file: Location) -> str:
    """The comment at the head of an experiment, which says what it is and what it costs; and what it cannot show."""
    lines = file.read_bytes().decode().splitlines()
    head = lines[: next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    comment, planned = " ".join(line.lstrip("# ") for line in head), read_experiment(str(file))
    least = least_seeds(len(planned.strategies) - 1)
    if planned.seeds >= least:
        return comment
    few = f"Its {plural(planned.seeds, 'seed')} can show nothing of so many strategies: --set seeds={least} can."
    return f"{comment} {few}"


def _ours(name: str, ran: Ran, charts: str) -> Iterator[str]:
    curves = ran.curves
    strategies, seeds = pc.unique(curves["strategy"]).to_pylist(), len(pc.unique(curves["seed"]))
    caution = caution_on(seeds, len(strategies) - 1)
    yield f"Run here: `experiments/{name}.toml`, {plural(seeds, 'seed')}.{' ' if caution else ''}{caution}\n"
    for task in _tasks_of(curves):
        drawn, areas = _curves_of(curves, task), ran.areas[task]
        points = " | ".join(f"{value:,.0f}" for value in drawn.num_labels_K)
        yield f"| {task_name(task)}, {drawn.metric} in % | {points} | whole curve against random, points |"
        yield f"|---|{'---|' * len(drawn.num_labels_K)}---|"
        for strategy, (mean_K, half_K) in drawn.heights.items():
            cells = [f"{100 * mean:.1f} ± {100 * half:.1f}" for mean, half in zip(mean_K, half_K, strict=True)]
            yield f"| {strategy} | {' | '.join(cells)} | {_against_random(areas.get(strategy))} |"
        chart = f"{task_name(task)}: {drawn.metric} by strategy, and its difference from random"
        yield f"\n![{chart}]({charts}/{chart_name(name, task)})\n"
    yield from _seconds(curves, strategies)


def _against_random(gap: Difference | None) -> str:
    if gap is None:
        return "–"
    mean, low, high = map(signed, gap.mean)
    return f"{mean} ({low} to {high}), {verdict(gap)}"


def chart_name(experiment: str, task: str) -> str:
    """The file of a task model's chart."""
    return f"{experiment}-{task}.svg"


def charts_of(curves: dict[str, pa.Table]) -> dict[str, bytes]:
    """The page's charts by file, SVG: see `page_of` for the curves."""
    return {
        chart_name(name, task): both_charts(_curves_of(table, task))
        for name, table in curves.items()
        for task in _tasks_of(table)
    }


def _tasks_of(curves: pa.Table) -> list[str]:
    tasks: list[str] = pc.unique(curves["task"].drop_null()).to_pylist()
    return tasks


def _values(curves: pa.Table, task: str) -> dict[str, NDArray[np.float64]]:
    return values_by_strategy(curves, task, pc.unique(curves["strategy"]).to_pylist())


def _curves_of(curves: pa.Table, task: str) -> Curves:
    bought = "answers" if pc.any(pc.equal(curves["metric"], "answers")).as_py() else "labels"
    return Curves(*bands_of(_values(curves, task)), bought_of(curves), bought, metric_name(task))


def _areas_of(curves: pa.Table, task: str) -> dict[str, Difference]:
    """The mean difference from random over the whole curve, in points, by strategy."""
    return differences(above_random(_values(curves, task), bought_of(curves)))


def _seconds(curves: pa.Table, strategies: list[str]) -> Iterator[str]:
    """What a batch took, on average; nothing where that was not recorded."""
    rows = curves.filter(pc.match_substring(curves["metric"], "seconds_"))
    if not len(rows):
        return
    means = {
        (row["strategy"], row["metric"]): row["value_mean"]
        for row in rows.group_by(["strategy", "metric"]).aggregate([("value", "mean")]).to_pylist()
    }
    yield "| seconds a batch | train and score | select |\n|---|---|---|"
    for strategy in strategies:
        parts = [means.get((strategy, f"seconds_{part}")) for part in ("train_and_score", "select")]
        yield f"| {strategy} | {' | '.join('–' if one is None else f'{one:.1f}' for one in parts)} |"
    yield ""
