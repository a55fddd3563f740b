"""What the curves of a simulation show, as figures and as sentences."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.config.texts import plural
from engine.simulation import comparisons
from engine.simulation.comparisons import LEAST_SEEDS, LEVEL, Difference, Saving
from engine.simulation.curve_charts import Bands
from engine.simulation.experiment import Experiment
from engine.simulation.learners import learner_of
from engine.simulation.measuring import ACCURACY, MIOU
from engine.simulation.strategies import RANDOM

BATCH_METRICS = (
    "share_missing", "distance", "auc", "speaks", "lacking",
    "seconds_train_and_score", "seconds_score", "seconds_select",
)  # fmt: skip


class Task(NamedTuple):
    """The comparisons of one task model. By strategy: mean accuracies and half the width of their simultaneous band
    (K,), the same of the difference from random, the difference of areas from random in points of accuracy, the number
    of seeds in which it is ahead of random, labels saved; and by pair of other strategies the difference of areas and
    the number of seeds in which the first is ahead."""

    curves: Bands
    gaps: Bands
    areas: dict[str, Difference]
    ahead: dict[str, int]
    savings: dict[str, list[Saving | None]]
    pairs: dict[tuple[str, str], tuple[Difference, int]]


class Findings(NamedTuple):
    """All that is reported. `num_labels_K` are the points: labels that were bought, or `bought` is "answers"; `batches`
    are means over seeds by strategy and metric, a value a round."""

    name: str
    strategies: list[str]
    seeds: int
    num_labels_K: NDArray[np.float64]
    tasks: dict[str, Task]
    batches: dict[str, dict[str, list[float | None]]]
    caution: str
    sentences: list[str]
    bought: str = "labels"


def findings_of(experiment: Experiment, name: str, curves: pa.Table) -> Findings:
    """The findings from a table of CURVES_SCHEMA."""
    strategies = [strategy.name for strategy in experiment.strategies]
    num_labels_K = bought_of(curves)
    tasks: dict[str, Task] = {task: _task(curves, task, strategies, num_labels_K) for task in experiment.tasks}
    caution = caution_on(experiment.seeds, len(strategies) - 1)
    if experiment.seeds < LEAST_SEEDS:
        caution += " Intervals, and the seeds that are said to be needed, are rough guesses from so few."
    batches = {strategy: _batches(curves, strategy, experiment.rounds) for strategy in strategies}
    bought = "answers" if experiment.oracle.annotators else "labels"
    sentences = _sentences(tasks, bought)
    return Findings(name, strategies, experiment.seeds, num_labels_K, tasks, batches, caution, sentences, bought)


def task_name(task: str) -> str:
    """A task model for a reader."""
    return learner_of(task).words


def metric_of(task: str) -> str:
    """What a task model is measured by."""
    return MIOU if learner_of(task).sees == "masks" else ACCURACY


def metric_name(task: str) -> str:
    """The metric of a task model for a person."""
    return {MIOU: "mIoU"}.get(metric_of(task), metric_of(task))


def bought_of(curves: pa.Table) -> NDArray[np.float64]:
    """What was paid for at each point: labels, or where there are annotators their answers."""
    answers = curves.filter(pc.equal(curves["metric"], "answers"))
    if len(answers):
        found = answers.group_by("round").aggregate([("value", "mean")]).sort_by("round")["value_mean"]
    else:
        found = curves.group_by("round").aggregate([("num_labels", "mean")]).sort_by("round")["num_labels_mean"]
    values: NDArray[np.float64] = found.to_numpy()
    return values


def values_of(curves: pa.Table, strategy: str, task: str, metric: str) -> NDArray[np.float64]:
    """(S, K): a row a seed."""
    is_wanted = pc.and_(pc.equal(curves["strategy"], strategy), pc.equal(curves["metric"], metric))
    rows = curves.filter(pc.and_(is_wanted, pc.equal(curves["task"], task)))
    rows = rows.sort_by([("seed", "ascending"), ("round", "ascending")])
    num_points = len(pc.unique(rows["round"]))
    found: NDArray[np.float64] = rows["value"].to_numpy().reshape(-1, num_points)
    return found


def values_by_strategy(curves: pa.Table, task: str, strategies: list[str]) -> dict[str, NDArray[np.float64]]:
    """(S, K) of what a task model is measured by, by strategy."""
    return {name: values_of(curves, name, task, metric_of(task)) for name in strategies}


def bands_of(value: dict[str, NDArray[np.float64]]) -> tuple[Bands, Bands]:
    """The mean curves with their bands, and those of the differences from random, in points."""
    gaps = {name: comparisons.band(100 * (value[name] - value[RANDOM])) for name in value if name != RANDOM}
    return {name: comparisons.band(value_SK) for name, value_SK in value.items()}, gaps


def above_random(
    value: dict[str, NDArray[np.float64]], num_labels_K: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """How far the area of each strategy is above that of random, in points (S,)."""
    area = {name: comparisons.area(num_labels_K, value_SK) for name, value_SK in value.items()}
    return {name: 100 * (area[name] - area[RANDOM]) for name in value if name != RANDOM}


def _task(curves: pa.Table, task: str, strategies: list[str], num_labels_K: NDArray[np.float64]) -> Task:
    value = values_by_strategy(curves, task, strategies)
    area = {name: comparisons.area(num_labels_K, value[name]) for name in strategies}
    others = [name for name in strategies if name != RANDOM]
    # Those with random are in the other table: a larger family would show less of each.
    pairs = [(a, b) for place, a in enumerate(others) for b in others[place + 1 :]]
    above, (heights, distances) = above_random(value, num_labels_K), bands_of(value)
    # Points of accuracy, hundredths.
    gaps = {f"{a}\0{b}": 100 * (area[a] - area[b]) for a, b in pairs}
    compared = comparisons.differences(gaps)
    firsts = {pair: int((gaps["\0".join(pair)] > 0).sum()) for pair in pairs}
    return Task(
        curves=heights,
        gaps=distances,
        areas=comparisons.differences(above),
        ahead={name: int((gap_S > 0).sum()) for name, gap_S in above.items()},
        savings={name: comparisons.savings(num_labels_K, value[name], value[RANDOM]) for name in others},
        pairs={pair: (compared["\0".join(pair)], firsts[pair]) for pair in pairs},
    )


def _batches(curves: pa.Table, strategy: str, rounds: int) -> dict[str, list[float | None]]:
    rows = curves.filter(pc.and_(pc.equal(curves["strategy"], strategy), pc.is_null(curves["task"])))
    means = rows.group_by(["metric", "round"]).aggregate([("value", "mean")]).to_pylist()
    found = {(row["metric"], row["round"]): row["value_mean"] for row in means}
    used = [metric for metric in BATCH_METRICS if any(name == metric for name, _ in found)]
    return {metric: [found.get((metric, number)) for number in range(rounds + 1)] for metric in used}


def caution_on(seeds: int, num_tests: int) -> str:
    """What so few seeds cannot show; empty where they can."""
    least = comparisons.least_seeds(num_tests)
    if seeds >= least:
        return ""
    beside = f" and {num_tests} strategies beside random" if num_tests > 1 else ""
    return (
        f"With {seeds} seeds{beside} nothing can be significant, however large it is: give at least {least} seeds. "
        "What follows is a first impression."
    )


def caution_on_pairs(found: Findings, task: Task) -> str:
    """What so few seeds cannot show of pairs; empty where they can."""
    least = comparisons.least_p(found.seeds, len(task.pairs))
    if least < LEVEL or not task.pairs:
        return ""
    return (
        f"With {found.seeds} seeds and {plural(len(task.pairs), 'pair')} no pair can be shown: the smallest possible p "
        f"is {least:.2f}. Give more seeds or fewer strategies."
    )


def _sentences(tasks: dict[str, Task], bought: str) -> list[str]:
    """What a data lead reads: a few words on each strategy, over all task models."""
    texts = []
    for name in next(iter(tasks.values())).areas:
        parts = {task: (found.areas[name], found.savings[name][0]) for task, found in tasks.items()}
        shown = [_shown(task, *part, bought) for task, part in parts.items() if part[0].is_shown]
        hidden = [_not_shown(task, gap) for task, (gap, _) in parts.items() if not gap.is_shown]
        texts.append(f"{name}: {'; '.join(shown + hidden)}.")
    return texts


def _shown(task: str, gap: Difference, saving: Saving | None, bought: str) -> str:
    side = "above" if gap.mean.value > 0 else "below"
    interval = f"95 % interval {signed(gap.mean.low)} to {signed(gap.mean.high)}"
    text = f"{task_name(task)} {abs(gap.mean.value):.1f} points {side} random ({interval})"
    return text if saving is None else f"{text}, {saving_text(saving, bought)}"


def _not_shown(task: str, gap: Difference) -> str:
    text = f"{task_name(task)} not shown to differ from random ({signed(gap.mean.value)} points; "
    if gap.seeds_needed is None:
        return f"{text}more than {comparisons.MOST_SEEDS_NEEDED:,} seeds would be needed)"
    return f"{text}about {gap.seeds_needed:,} seeds would show that)"


def signed(value: float) -> str:
    """A number with its sign, one decimal."""
    return f"{value:+.1f}".replace("-", "−")


def saving_text(saving: Saving, bought: str) -> str:
    """Labels, or answers, saved, at the accuracy that random has in the end, in words."""
    value, low, high = saving.saved
    if value == -np.inf:
        return "random's last accuracy not reached"
    words = "fewer" if value >= 0 else "more"
    if low == -np.inf:
        best = f"at best {_percent(abs(high))} {'fewer' if high >= 0 else 'more'}; " if high > -np.inf else ""
        spread = f"{best}perhaps not reached"
    elif low >= 0 or high < 0:
        spread = " to ".join(sorted((f"{abs(100 * end):.0f}" for end in (low, high)), key=float))
    else:
        spread = f"{_percent(high)} fewer to {_percent(-low)} more"
    return f"{abs(100 * value):.0f} % {words} {bought} ({spread})"


def short_saving(saving: Saving | None) -> str:
    """Labels saved as a cell of a table."""
    if saving is None:
        return "–"
    value, low, high = map(_percent, saving.saved)
    return value if value == low == high else f"{value} ({low} to {high})"


def _percent(value: float) -> str:
    return "not reached" if value == -np.inf else f"{100 * value:.0f} %".replace("-", "−")


def verdict(gap: Difference) -> str:
    """better, worse or not shown."""
    if not gap.is_shown:
        return "not shown"
    return "better" if gap.mean.value > 0 else "worse"


def to_json(found: Findings) -> dict[str, Any]:
    """The findings as JSON values: minus infinity is the text "not reached"."""
    return {
        "experiment": found.name,
        "strategies": found.strategies,
        "seeds": found.seeds,
        "num_labels": found.num_labels_K.tolist(),
        "caution": found.caution,
        "sentences": found.sentences,
        "tasks": {name: _task_json(task) for name, task in found.tasks.items()},
        "batches": found.batches,
    }


def _task_json(task: Task) -> dict[str, Any]:
    return {
        "curves": {name: _band_json(band) for name, band in task.curves.items()},
        "differences": {name: _band_json(band) for name, band in task.gaps.items()},
        "area_against_random": {
            name: {**_difference_json(gap), "ahead_in": task.ahead[name]} for name, gap in task.areas.items()
        },
        "labels_saved": {name: [_saving_json(one) for one in savings] for name, savings in task.savings.items()},
        "pairs": [
            {"first": a, "second": b, "first_ahead_in": ahead, **_difference_json(gap)}
            for (a, b), (gap, ahead) in task.pairs.items()
        ],
    }


def _band_json(band: tuple[NDArray[np.float64], NDArray[np.float64]]) -> dict[str, Any]:
    # A single seed has no band.
    return {"mean": band[0].tolist(), "half_width": [None if np.isinf(w) else float(w) for w in band[1]]}


def _difference_json(gap: Difference) -> dict[str, Any]:
    return {
        "mean": gap.mean.value,
        "low": gap.mean.low,
        "high": gap.mean.high,
        "p": gap.p,
        "p_holm": gap.p_holm,
        "is_shown": gap.is_shown,
        "verdict": verdict(gap),
        "seeds_needed": gap.seeds_needed,
    }


def _saving_json(saving: Saving | None) -> dict[str, Any] | None:
    if saving is None:
        return None
    value, low, high = (("not reached" if end == -np.inf else end) for end in saving.saved)
    return {
        "share_of_gain": saving.share_of_gain,
        "accuracy": saving.accuracy,
        "bought_by_random": saving.bought,
        "saved": value,
        "low": low,
        "high": high,
        "not_reached": saving.not_reached,
    }
