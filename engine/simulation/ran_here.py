"""Curves that were made here: whether they are of the experiment that their file names, and what they show."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.config.texts import plural
from engine.errors import InputError
from engine.simulation.comparisons import Difference, differences
from engine.simulation.experiment import Experiment, read_experiment
from engine.simulation.findings import above_random, bought_of, caution_on, values_by_strategy
from engine.simulation.variants import Variant, variant_of
from engine.storage.location import Location


class Ran(NamedTuple):
    """The curves of an experiment, what --set changed of it, and by task model and strategy the mean difference from
    random over the whole curve, in points."""

    variant: Variant
    curves: pa.Table
    areas: dict[str, dict[str, Difference]]


def named_variant(stem: str, curves: pa.Table) -> Variant:
    """What made these curves. Raises InputError where the file's name does not say it."""
    variant = variant_of(curves)
    if variant is None:
        why = "it does not say what made it, because an earlier version did"
        raise InputError(f"{stem}.parquet: {why}; run the same vaal simulate again, which reuses its campaigns")
    if variant.stem != stem:
        made = f"{variant.file} {variant.words}".strip()
        raise InputError(f"{stem}.parquet: made by {made}; name it {variant.stem}.parquet")
    return variant


def ran_of(stem: str, curves: pa.Table, experiments: Location) -> Ran:
    """Curves with what they show. Raises InputError where the file's name does not say what made them."""
    _require_paired(stem, curves)
    variant = named_variant(stem, curves)
    file = f"{experiments}/{variant.file}"
    if fault := _fault_of(curves, read_experiment(file, variant.settings)):
        raise InputError(f"{stem}.parquet: not of {file}: {fault}")
    return Ran(variant, curves, {task: _areas_of(curves, task) for task in tasks_of(curves)})


def _require_paired(name: str, curves: pa.Table) -> None:
    """Raises InputError where the strategies and task models, which are compared, have not the same points."""
    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for row in curves.filter(pc.is_valid(curves["task"])).select(["strategy", "task", "seed", "round"]).to_pylist():
        found.setdefault((row["strategy"], row["task"]), set()).add((row["seed"], row["round"]))
    points = found[next(iter(found))] if found else set()
    if odd := [strategy for (strategy, _), own in found.items() if own != points]:
        why = f"{odd[0]} has not the seeds and rounds of the others; give curves.parquet as vaal simulate writes it"
        raise InputError(f"{name}.parquet: {why}")


def _fault_of(curves: pa.Table, experiment: Experiment) -> str:
    """Why the curves are not of the experiment, by its strategies, task models and batches; empty if they are."""
    planned = [one.name for one in experiment.strategies]
    if odd := sorted({*pc.unique(curves["strategy"]).to_pylist()} ^ {*planned}):
        return f"strategy {odd[0]} is in one of them alone"
    if odd := sorted({*tasks_of(curves)} ^ {*experiment.tasks}):
        return f"task model {odd[0]} is in one of them alone"
    steps = np.diff(bought_of(curves))
    if len(steps) > experiment.rounds or (steps != experiment.budget).any():
        batches = ", ".join(f"{step:g}" for step in steps)
        return f"batches of {batches}, and not {experiment.rounds} of {experiment.budget}"
    return ""


def _areas_of(curves: pa.Table, task: str) -> dict[str, Difference]:
    """The mean difference from random over the whole curve, in points, by strategy."""
    return differences(above_random(heights_of(curves, task), bought_of(curves)))


def shared_runs(own: Ran, other: Ran) -> str:
    """A sentence on the runs that an earlier experiment has too, which are not more evidence; empty without such."""
    tasks = {*own.areas} & {*other.areas}
    runs, known = _runs_of(own.curves, tasks), _runs_of(other.curves, tasks)
    same: dict[str, list[bool]] = {}
    for (strategy, seed), values in runs.items():
        theirs = known.get((strategy, seed), {})
        both = values.keys() & theirs.keys()
        same.setdefault(strategy, []).append(bool(both) and all(values[point] == theirs[point] for point in both))
    found = [
        f"`{strategy}`" if all(seeds) else f"`{strategy}` ({sum(seeds)} of {plural(len(seeds), 'seed')})"
        for strategy, seeds in sorted(same.items())
        if any(seeds)
    ]
    return f"Runs that `{other.variant.stem}` has too: {', '.join(found)}." if found else ""


def _runs_of(curves: pa.Table, tasks: set[str]) -> dict[tuple[str, int], dict[tuple[Any, ...], float]]:
    """What these task models reached by strategy and seed, and in there by round, task model and metric."""
    runs: dict[tuple[str, int], dict[tuple[Any, ...], float]] = {}
    for row in curves.to_pylist():
        # Seconds differ where a run was played twice.
        if row["task"] in tasks and row["metric"] != "seconds":
            run = runs.setdefault((row["strategy"], row["seed"]), {})
            run[row["round"], row["task"], row["metric"]] = row["value"]
    return runs


def tasks_of(curves: pa.Table) -> list[str]:
    """The task models that were measured."""
    tasks: list[str] = pc.unique(curves["task"].drop_null()).to_pylist()
    return tasks


def heights_of(curves: pa.Table, task: str) -> dict[str, NDArray[np.float64]]:
    """(S, K) of a task model by strategy: a row a seed."""
    return values_by_strategy(curves, task, pc.unique(curves["strategy"]).to_pylist())


def caution_of(curves: pa.Table) -> str:
    """What so few seeds cannot show of so many strategies; empty where they can."""
    return caution_on(len(pc.unique(curves["seed"])), len(pc.unique(curves["strategy"])) - 1)
