"""Charts of a simulation's curves: what a task model reaches, and its difference from random."""

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config.texts import plural
from engine.report.charts import LIGHT, Theme
from engine.simulation.strategies import RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#d55e00", "#0072b2", "#009473", "#b35fa0", "#b58900", "#4aa8d8", "#7a5195", "#8a6d3b")
"""Told apart by colour-blind people too; used again from the first where there are more strategies."""
GAPS_SHOWN = 4
"""A band of a difference is drawn if half its width is at most so many times the chart's largest difference."""
Bands = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By strategy: means and half the width of their simultaneous band (K,)."""


class Curves(NamedTuple):
    """What a task model reaches by strategy, shares of 1, and how far that is from random, in points, at K numbers of
    what was `bought`: "labels" or "answers"."""

    heights: Bands
    gaps: Bands
    num_labels_K: NDArray[np.float64]
    bought: str
    metric: str


def colours_of(strategies: list[str]) -> dict[str, str]:
    """The colour of each strategy; random is grey."""
    others = [name for name in strategies if name != RANDOM]
    return {RANDOM: "#8b939b"} | {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(others)}


def chart(curves: Curves, kind: str, theme: Theme) -> bytes:
    """A PNG of one `kind`: "accuracy" or "gap"."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), dpi=144, facecolor=theme.card, layout="constrained")
    _draw(figure.subplots(), curves, kind, theme)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def both_charts(curves: Curves) -> bytes:
    """An SVG with both kinds and their key; the same bytes for the same curves."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Letters stay letters, so that the file is small and can be searched.
    with mpl.rc_context({"svg.hashsalt": "vaal", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9.6, 4.0), facecolor=LIGHT.card, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw(left, curves, "accuracy", LIGHT)
        _draw(right, curves, "gap", LIGHT)
        lines, names = left.get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def _draw(axes: "Axes", curves: Curves, kind: str, theme: Theme) -> None:
    """The mean curves of a kind; the differences with their simultaneous bands."""
    is_gap = kind == "gap"
    _dress(axes, curves.bought, "difference from random, points" if is_gap else f"{curves.metric}, %", theme)
    bands, scale = (curves.gaps, 1) if is_gap else (curves.heights, 100)
    colours, num_hidden = colours_of(list(curves.heights)), 0
    largest = max((float(np.abs(mean_K).max()) for mean_K, _ in bands.values()), default=0.0)
    if is_gap:
        axes.axhline(0, color=colours[RANDOM], linewidth=1.2)
    for name, (mean_K, half_K) in bands.items():
        style: dict[str, Any] = {"color": colours[name], "linewidth": 1.8, "marker": "o", "markersize": 3}
        style["linestyle"] = "-" if list(colours).index(name) <= len(COLOURS) else "--"
        axes.plot(curves.num_labels_K, scale * mean_K, label=name, **style)
        # Bands of all accuracies would lie on one another: they show on the differences.
        if is_gap and half_K.max() <= GAPS_SHOWN * largest:
            low_K, high_K = mean_K - half_K, mean_K + half_K
            axes.fill_between(curves.num_labels_K, low_K, high_K, color=colours[name], alpha=0.12, linewidth=0)
        elif is_gap:
            num_hidden += 1
    # Bands of few seeds would fill the chart and make the means a line.
    if num_hidden:
        text = f"{plural(num_hidden, 'band')} too wide to draw: such differences may be chance"
        axes.set_title(text, color=theme.muted, fontsize=9)


def _dress(axes: "Axes", bought: str, label: str, theme: Theme) -> None:
    axes.set_facecolor(theme.card)
    axes.set_xlabel(bought, color=theme.muted)
    axes.set_ylabel(label, color=theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=9)
    axes.grid(color=theme.line, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.line)
