"""The page about experiments that others published: what they report, what was run here, and what a run would cost.

It is made from files alone: published figures (experiments/published.toml), the experiments, and curves.
"""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.config.texts import plural
from engine.simulation.comparisons import Difference, least_seeds
from engine.simulation.curve_charts import Curves, both_charts
from engine.simulation.experiment import read_experiment
from engine.simulation.findings import bands_of, bought_of, metric_name, signed, task_name, verdict
from engine.simulation.published import Figure, read_published
from engine.simulation.ran_here import Ran, caution_of, heights_of, named_variant, ran_of, shared_runs, tasks_of
from engine.simulation.variants import experiment_of
from engine.storage.location import Location

HEAD = """# Experiments: the paper's figures, and ours

`python -m jobs.experiments` made this page from the curves of `vaal simulate`; do not edit it.

Each figure has what others report, with the source and how sure that is, and what was run here: means over seeds, and
half the width of a band that holds the whole true curve in 95 of 100 simulations. `± –` is a band that is wider than
the whole scale from 0 to 100: so few seeds say nothing of that height. The last column is the mean difference from
random over the whole curve, with its 95 % interval over paired seeds, and what a test over all strategies together says
of it, for each task model by itself. `not shown` is no proof that there is none, and an interval without 0 may have it:
the more strategies are compared, the more one of them looks good by chance. Charts have the curves on the left, and on
the right the differences from random with their bands. Ours are small versions, with fewer and smaller images and a
smaller task model: they compare strategies with one another, and their heights with nobody's. What was not run has its
plan, an estimate unless it says otherwise. [simulation.md](simulation.md) says how an experiment runs,
[datasets.md](datasets.md) how to get the data.

Out of scope: parts of an image as what is bought (regions, superpixels). A campaign picks, sends and pays whole images,
as vendors price them, and an experiment is a whole campaign.
"""

VAAL = "vaal"
"""The strategy in whose seconds the paper gives those of others."""
RIVALS = {
    "VAAL (`vaal`, `vaal_2019`, and `lowest`, nearly the same rule)": ("vaal", "vaal_2019", "lowest"),
    "This project's `default`": ("default",),
}
"""What the conclusion counts: words for it, and the names of its strategies."""
OTHERS = "Other experiments"
"""The title of those that no figure has."""
NAMES = """[Strategies by name](simulation.md#strategies-by-name) says what the names mean; the file of an \
experiment explains its own."""


def page_of(
    experiments: Location,
    curves: dict[str, pa.Table],
    charts: str = "experiments",
    sha256: dict[str, str] | None = None,
) -> str:
    """The page as Markdown.

    Args:
        experiments: the folder of the experiments and of published.toml.
        curves: tables of `simulate.CURVES_SCHEMA` by the name of their file, without .parquet: see `variants`.
        charts: the folder of the charts, beside the page.
        sha256: of each such file, for where it was made; without it the page does not say that.

    Raises:
        InputError: a file is missing, or curves are not of their experiment, all strategies in the same seeds.
        ConfigError: published.toml is wrong.
    """
    published = read_published(experiments / "published.toml")
    for stem in sorted(curves):
        named_variant(stem, curves[stem])
    ran = {stem: ran_of(stem, curves[stem], experiments) for stem in sorted(curves)}
    named = {name for figure in published.figures for name in figure.experiments}
    others = sorted({experiment_of(stem) for stem in ran} - named)
    last = [Figure(title=OTHERS, experiments=others)] if others else []
    compared = {stem: one for stem, one in ran.items() if experiment_of(stem) not in published.timed}
    parts, where = [HEAD, *_summary(compared)], published.where(sha256 or {})
    for figure in [*published.figures, *last]:
        parts += _section(figure, experiments, ran, charts, where)
    return "\n".join(parts)


def _summary(ran: dict[str, Ran]) -> Iterator[str]:
    """What was shown of which strategy, over all experiments."""
    if not ran:
        return
    yield "## What was shown here\n"
    yield f"{' '.join(_conclusion(ran))}\n"
    yield "| experiment | seeds | shown ahead of random | shown behind it |\n|---|---|---|---|"
    for name, one in ran.items():
        sides = (
            "; ".join(f"{strategy} {', '.join(parts)}" for strategy, parts in found.items())
            for found in (_shown(one.areas, 1), _shown(one.areas, -1))
        )
        yield f"| `{name}` | {len(pc.unique(one.curves['seed']))} | {' | '.join(side or '–' for side in sides)} |"
    yield ""


def _conclusion(ran: dict[str, Ran]) -> Iterator[str]:
    """Sentences that count the rows of the table."""
    few = [f"`{name}`" for name, one in ran.items() if caution_of(one.curves)]
    yield f"{plural(len(ran), 'experiment')} ran here. Those with too few seeds to show anything: {_counted(few)}."
    yield "An experiment counts where at least one of its task models shows a difference."
    for words, names in RIVALS.items():
        own = {name: one for name, one in ran.items() if {*names} & {*pc.unique(one.curves["strategy"]).to_pylist()}}
        ahead, behind = (
            [f"`{name}`" for name, one in own.items() if {*names} & {*_shown(one.areas, side)}] for side in (1, -1)
        )
        yield f"{words} is in {len(own) or 'none'} of them. It is shown ahead of random in {_counted(ahead)}, and"
        yield f"behind it in {_counted(behind)}."
    yield NAMES


def _counted(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "none"


def _shown(areas: dict[str, dict[str, Difference]], side: int) -> dict[str, list[str]]:
    """The strategies that are shown ahead of random, or with side -1 behind it, with the points by task model."""
    found: dict[str, list[str]] = {}
    for task, gaps in areas.items():
        for strategy, gap in gaps.items():
            if gap.is_shown and side * gap.mean.value > 0:
                found.setdefault(strategy, []).append(f"{signed(gap.mean.value)} ({task_name(task)})")
    return found


def _section(
    figure: Figure, experiments: Location, ran: dict[str, Ran], charts: str, where: dict[str, str]
) -> Iterator[str]:
    yield f"## {figure.title}\n"
    if figure.note:
        yield f"{figure.note}\n"
    if figure.curves:
        yield "| published by | method | at, % of the pool | value | how sure |\n|---|---|---|---|---|"
        for one in figure.curves:
            at, values = (", ".join(f"{value:g}" for value in row) or "–" for row in (one.at, one.values))
            yield f"| {one.source} | {one.method} | {at} | {values} | {one.certainty} |"
        yield ""
    for name in figure.experiments:
        for stem, own in ran.items():
            if experiment_of(stem) == name:
                yield _head(own, where.get(stem, ""), {} if figure.is_timing else ran)
                yield from () if figure.is_timing else _tables(stem, own, charts)
                yield from _seconds(own.curves)
        if name not in ran:
            file = experiments / f"{name}.toml"
            parts = [_plan(file)] if figure.is_timing else [_plan(file), *_too_few(file)]
            yield f"Not run: `experiments/{name}.toml`. {' '.join(parts)}\n"


def _plan(file: Location) -> str:
    """The comment at the head of an experiment, which says what it is and what it costs."""
    lines = file.read_bytes().decode().splitlines()
    head = lines[: next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    return " ".join(line.lstrip("# ") for line in head)


def _too_few(file: Location) -> Iterator[str]:
    """What the planned seeds of an experiment cannot show."""
    planned = read_experiment(str(file))
    if planned.seeds < (least := least_seeds(len(planned.strategies) - 1)):
        yield f"Its {plural(planned.seeds, 'seed')} cannot show that such curves differ: --set seeds={least} can."


def _head(own: Ran, where: str, compared: dict[str, Ran]) -> str:
    """What was run: how, where, with which runs that another experiment has too, and what so few seeds cannot show."""
    words, seeds = own.variant.words, len(pc.unique(own.curves["seed"]))
    how = f" with `{words}`" if words else ""
    run = f"Run here: `experiments/{own.variant.file}`{how}, {plural(seeds, 'seed')}."
    before = takewhile(lambda other: other is not own, compared.values())
    shared = [line for other in before if (line := shared_runs(own, other))]
    parts = [run, where, *shared, caution_of(own.curves) if compared else ""]
    return f"{' '.join(filter(None, parts))}\n"


def _tables(stem: str, ran: Ran, charts: str) -> Iterator[str]:
    """A table and a chart for each task model."""
    for task in tasks_of(ran.curves):
        drawn, areas = _curves_of(ran.curves, task), ran.areas[task]
        points = " | ".join(f"{value:,.0f}" for value in drawn.num_labels_K)
        bought = "answers paid for" if drawn.bought == "answers" else drawn.bought
        yield f"| {task_name(task)}, {drawn.metric} in %, by {bought} | {points} | whole curve against random, points |"
        yield f"|---|{'---|' * len(drawn.num_labels_K)}---|"
        for strategy, (mean_K, half_K) in drawn.heights.items():
            cells = [f"{100 * mean:.1f} ± {_half_width(half)}" for mean, half in zip(mean_K, half_K, strict=True)]
            yield f"| {strategy} | {' | '.join(cells)} | {_against_random(areas.get(strategy))} |"
        chart = f"{task_name(task)}: {drawn.metric} by strategy, and its difference from random"
        yield f"\n![{chart}]({charts}/{chart_name(stem, task)})\n"


def _half_width(half: float) -> str:
    """Half the width of a band in points; a band that is wider than the whole scale says nothing."""
    return f"{100 * half:.1f}" if 2 * half <= 1 else "–"


def _against_random(gap: Difference | None) -> str:
    if gap is None:
        return "–"
    mean, low, high = map(signed, gap.mean)
    return f"{mean} ({low} to {high}), {verdict(gap)}"


def chart_name(stem: str, task: str) -> str:
    """The file of a task model's chart."""
    return f"{stem}-{task}.svg"


def charts_of(experiments: Location, curves: dict[str, pa.Table]) -> dict[str, bytes]:
    """The page's charts by file, SVG: see `page_of`."""
    timed = read_published(experiments / "published.toml").timed
    return {
        chart_name(name, task): both_charts(_curves_of(table, task))
        for name, table in curves.items()
        if experiment_of(name) not in timed
        for task in tasks_of(table)
    }


def _curves_of(curves: pa.Table, task: str) -> Curves:
    bought = "answers" if pc.any(pc.equal(curves["metric"], "answers")).as_py() else "labels"
    return Curves(*bands_of(heights_of(curves, task)), bought_of(curves), bought, metric_name(task))


def _seconds(curves: pa.Table) -> Iterator[str]:
    """What a batch took, on average, and the time to choose one in VAAL's of the same seed and round: the median and
    the range. Nothing where that was not recorded."""
    rows = curves.filter(pc.match_substring(curves["metric"], "seconds_")).to_pylist()
    if not rows:
        return
    took: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        took.setdefault(row["strategy"], {}).setdefault(row["metric"].removeprefix("seconds_"), []).append(row["value"])
    columns = {"train_and_score": "train and score", "score": "scoring alone", "select": "select"}
    parts = [part for part in columns if any(part in own for own in took.values())]
    ratios = _ratios(rows)
    heads = [columns[part] for part in parts] + ["score + select, times VAAL's"] * bool(ratios)
    yield f"| seconds a batch | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}"
    for strategy in pc.unique(curves["strategy"]).to_pylist():
        own = took.get(strategy, {})
        cells = [f"{np.mean(own[part]):.1f}" if part in own else "–" for part in parts]
        if ratios:
            found = ratios.get(strategy, [])
            cells.append(f"{np.median(found):.1f} ({min(found):.1f} to {max(found):.1f})" if found else "–")
        yield f"| {strategy} | {' | '.join(cells)} |"
    yield ""


def _ratios(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """By strategy the seconds to choose each batch in those of VAAL, where both recorded them whole."""
    found: dict[tuple[str, int, int], dict[str, float]] = {}
    for row in rows:
        batch = found.setdefault((row["strategy"], row["seed"], row["round"]), {})
        batch[row["metric"]] = row["value"]
    asked = ("seconds_score", "seconds_select")
    choosing = {key: sum(batch[name] for name in asked) for key, batch in found.items() if {*asked} <= {*batch}}
    ratios: dict[str, list[float]] = {}
    for (strategy, seed, number), seconds in choosing.items():
        if (vaal := choosing.get((VAAL, seed, number))) is not None:
            ratios.setdefault(strategy, []).append(seconds / vaal)
    return ratios
