"""The page about a simulation: one HTML file with its pictures, for a person who decides about labels."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from engine.report.charts import THEMES, Theme
from engine.report.thumbnails import data_uri
from engine.simulation import findings as words
from engine.simulation.findings import Findings
from engine.simulation.strategies import RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#d55e00", "#0072b2", "#009473", "#b35fa0", "#b58900", "#4aa8d8", "#7a5195", "#8a6d3b")
"""Told apart by colour-blind people too; used again from the first where there are more strategies."""
METRIC_NAMES = {
    "share_missing": "Share of picks from classes without a first label",
    "distance": "Distance of the labels' classes from the pool's (total variation)",
    "auc": "AUC of the discriminators",
    "speaks": "Share of seeds in which the gate speaks",
    "lacking": "Share of the pool that lacks labels, before the batch",
    "seconds_train_and_score": "Seconds to train and score",
    "seconds_select": "Seconds to select",
}


def render(found: Findings) -> str:
    """The page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = Path(__file__).with_name("learning_page.html.j2").read_text(encoding="utf-8")
    pictures = {
        f"{task}-{kind}{suffix}": data_uri(_chart(found, task, kind, theme))
        for task in found.tasks
        for kind in ("accuracy", "gap")
        for suffix, theme in THEMES.items()
    }
    return environment.from_string(source).render(
        found=found, words=words, pictures=pictures, themes=THEMES, colours=colours_of(found.strategies), random=RANDOM,
        metric_names=METRIC_NAMES, number=_number,
    )  # fmt: skip


def colours_of(strategies: list[str]) -> dict[str, str]:
    """The colour of each strategy; random is grey."""
    others = [name for name in strategies if name != RANDOM]
    return {RANDOM: "#8b939b"} | {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(others)}


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}".replace("-", "−")


def _chart(found: Findings, name: str, kind: str, theme: Theme) -> bytes:
    """What a task model is measured by against labels, or its difference from random, with simultaneous bands."""
    task, heights = found.tasks[name], {"accuracy": f"{words.metric_of(name)}, %"}
    bands = task.curves if kind == "accuracy" else task.gaps
    axes = _axes(theme, found.bought, heights.get(kind, "difference from random, points"))
    scale, colours = (100 if kind == "accuracy" else 1), colours_of(found.strategies)
    if kind == "gap":
        axes.axhline(0, color=colours[RANDOM], linewidth=1.2)
    for place, (name, (mean_K, half_K)) in enumerate(bands.items()):
        style: dict[str, Any] = {"color": colours[name], "linewidth": 1.8, "marker": "o", "markersize": 3}
        style["linestyle"] = "-" if place <= len(COLOURS) else "--"
        axes.plot(found.num_labels_K, scale * mean_K, **style)
        # Bands of all accuracies would lie on one another: they show on the differences.
        if kind == "gap" and (half_K < 1e6).all():
            axes.fill_between(
                found.num_labels_K, mean_K - half_K, mean_K + half_K, color=colours[name], alpha=0.12, linewidth=0
            )
    return _png(axes)


def _axes(theme: Theme, bought: str, label: str) -> "Axes":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), dpi=144, facecolor=theme.card, layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor(theme.card)
    axes.set_xlabel(bought, color=theme.muted)
    axes.set_ylabel(label, color=theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=9)
    axes.grid(color=theme.line, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.line)
    return axes


def _png(axes: "Axes") -> bytes:
    content = io.BytesIO()
    axes.figure.savefig(content, format="png")  # type: ignore[union-attr]
    return content.getvalue()
