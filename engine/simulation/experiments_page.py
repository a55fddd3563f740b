"""The page about experiments that others published: what they report, what was run here, and what a run would cost.

It is made from files alone: published figures (experiments/published.toml), the experiments, and curves.
"""

import tomllib
from collections.abc import Iterator
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationError

from engine.config.section import Section
from engine.config.texts import explain, plural
from engine.errors import ConfigError, one_line
from engine.simulation.comparisons import LEAST_SEEDS, band
from engine.simulation.findings import bought_of, metric_of, task_name, values_of
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
half the width of a band that holds the whole true curve in 95 of 100 simulations. Ours are small versions on two cores,
with fewer and smaller images and a smaller task model: they compare strategies with one another, and their heights with
nobody's. What was not run has its plan. [simulation.md](simulation.md) says how an experiment runs;
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


def page_of(experiments: Location, curves: dict[str, pa.Table]) -> str:
    """The page as Markdown.

    Args:
        experiments: the folder of the experiments and of published.toml.
        curves: tables of `simulate.CURVES_SCHEMA` by the name of the experiment.

    Raises:
        InputError: a file is missing.
        ConfigError: published.toml is wrong, or curves are of an experiment that no figure names.
    """
    figures = _read(experiments / "published.toml").figures
    named = {name for figure in figures for name in figure.experiments}
    if unknown := sorted(set(curves) - named):
        raise ConfigError(f"{experiments}/published.toml: no figure has the experiment {unknown[0]}; add it to one")
    parts = [HEAD, *("\n".join(_section(figure, experiments, curves)) for figure in figures)]
    return "\n".join(parts)


def _read(file: Location) -> Published:
    try:
        return Published.model_validate(tomllib.loads(file.read_bytes().decode()))
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, [])}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML: {one_line(error)}; correct it") from error


def _section(figure: Figure, experiments: Location, curves: dict[str, pa.Table]) -> Iterator[str]:
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
        if name in curves:
            yield from _ours(name, curves[name])
        else:
            yield f"Not run: `experiments/{name}.toml`. {_comment(experiments / f'{name}.toml')}\n"


def _comment(file: Location) -> str:
    """The comment at the head of an experiment, which says what it is and what it costs."""
    lines = file.read_bytes().decode().splitlines()
    head = lines[: next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    return " ".join(line.lstrip("# ") for line in head)


def _ours(name: str, curves: pa.Table) -> Iterator[str]:
    seeds = len(pc.unique(curves["seed"]))
    few = "" if seeds >= LEAST_SEEDS else f"; with fewer than {LEAST_SEEDS} no difference can be shown"
    yield f"Run here: `experiments/{name}.toml`, {plural(seeds, 'seed')}{few}.\n"
    bought_K = bought_of(curves)
    strategies = pc.unique(curves["strategy"]).to_pylist()
    for task in pc.unique(curves["task"].drop_null()).to_pylist():
        yield f"| {task_name(task)}, {metric_of(task)} in % | {' | '.join(f'{value:,.0f}' for value in bought_K)} |"
        yield f"|---|{'---|' * len(bought_K)}"
        for strategy in strategies:
            mean_K, half_K = band(100 * values_of(curves, strategy, task, metric_of(task)))
            cells = [f"{mean:.1f} ± {half:.1f}" for mean, half in zip(mean_K, half_K, strict=True)]
            yield f"| {strategy} | {' | '.join(cells)} |"
        yield ""
    yield from _seconds(curves, strategies)


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
