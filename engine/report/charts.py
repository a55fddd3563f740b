"""The charts of a report as PNG, light or dark. Keys stand on the page, words outside the axes: they cover nothing."""

import io
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.config.texts import score_text
from engine.report.latent_map import LatentMap
from engine.tables.histogram import HISTOGRAM_SCHEMA
from engine.tables.selections import CONTROL, DUPLICATE, GROUP_FULL, PASSED_OVER, PICKED
from vaal.acquisition import column_of
from vaal.proportions import Share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Limits = tuple[float, float]
MOST_LETTERS = 24
"""Of a label beside a row of bars."""
_DASHED = (0, (4, 2))
_NO_VALUES = pa.table([[0.0], [1.0], [0], [0], [0]], schema=HISTOGRAM_SCHEMA)


class Theme(NamedTuple):
    """Colours, the same in charts and page. Those of the pools are told apart by colour-blind people too."""

    page: str
    card: str
    ink: str
    muted: str
    line: str
    picked: str
    labelled: str
    not_picked: str
    duplicate: str


LIGHT = Theme("#f5f6f7", "#ffffff", "#1d2126", "#5d6670", "#dfe3e7", "#d55e00", "#0072b2", "#a3abb3", "#009473")
DARK = Theme("#111417", "#1a1e22", "#e6e9ec", "#9aa4ae", "#31373d", "#f0803c", "#56b4e9", "#6b757f", "#2fc9a0")
THEMES = {"": LIGHT, "-dark": DARK}  # by the suffix of a chart's name


class Bins(NamedTuple):
    """A histogram: edges (n + 1,) ascending, and for each group of items its counts (n,)."""

    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]


def bins_of(histogram: pa.Table, picked_B: NDArray[np.float32]) -> Bins:
    """The selection's histogram, where the picks are a group of their own; one empty bin when nothing was scored."""
    columns = (histogram if len(histogram) else _NO_VALUES).columns
    low, high, labelled, eligible, out = (column.to_numpy() for column in columns)
    edges = np.append(low, high[-1])
    picked, _ = np.histogram(picked_B.astype(np.float64), edges)
    return Bins(edges, {"labelled": labelled, "picked": picked, "not_picked": eligible - picked, "out": out})


def score_name(acquisition: str) -> str:
    """The scores of an acquisition function, for an axis."""
    if acquisition == "vaal":
        return "score (logit):\nln of the odds of being labelled"
    return f"score ({column_of(acquisition).replace('_', ' ')}):\nthe lower, the more valuable"


def histogram_chart(bins: Bins, cut: float | None, highest: float | None, named: str, theme: Theme) -> bytes:
    """Densities of the labelled images and of those that could be picked, of which the picked ones in their colour.
    `cut`: the highest score that the query picked; `highest`: that of a candidate; None where no score decided.
    `named`: what is on the axis: see `score_name`.
    """
    axes = _new_axes((4.6, 2.8), theme, named, "share per unit of score")
    width = bins.edges[1] - bins.edges[0]
    labelled, picked = bins.counts["labelled"], bins.counts["picked"]
    unlabelled = picked + bins.counts["not_picked"]
    scale = 1 / (max(1, unlabelled.sum()) * width)
    axes.stairs(unlabelled * scale, bins.edges, baseline=picked * scale, fill=True, color=theme.not_picked)
    axes.stairs(picked * scale, bins.edges, fill=True, color=theme.picked)
    if labelled.any():
        axes.stairs(labelled / (labelled.sum() * width), bins.edges, color=theme.labelled, linewidth=1.6)
    # Scores that are all equal are one bar on a scale, and not a full chart.
    ends = float(bins.edges[0]), float(bins.edges[-1])
    axes.set_xlim(_limits([*ends], 20 * width) if len(bins.edges) < 4 else ends)
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.locator_params(axis="x", nbins=6)
    if cut is not None:
        axes.axvspan(bins.edges[0], cut, color=theme.picked, alpha=0.09, linewidth=0)
        _draw_level(axes, cut, "highest picked", 1.2, theme.picked)
    if highest is not None and highest != cut:
        _draw_level(axes, highest, "highest candidate", 0.7, theme.ink)
    return _png(axes)


def _limits(values: list[float], least: float, within: Limits = (-math.inf, math.inf)) -> Limits:
    """The ends of an axis for these values with some room, `within` what values can be. They are `least` apart, because
    one value, or equal ones, give no scale."""
    low, high = min(values), max(values)
    room = max(0.06 * (high - low), (least - high + low) / 2)
    # What has no room at one end has it at the other.
    shift = max(0, within[0] - low + room) - max(0, high + room - within[1])
    return max(low - room + shift, within[0]), min(high + room + shift, within[1])


def _draw_level(axes: "Axes", level: float, text: str, width: float, colour: str) -> None:
    """A vertical line, and its words above the axes: one line a level, on the side where there is room."""
    row = len(axes.texts)
    axes.axvline(level, color=colour, linewidth=width, linestyle=_DASHED)
    low, high = axes.get_xlim()
    side = "right" if level > (low + high) / 2 else "left"
    axes.annotate(
        f"{text}: {score_text(level)}", (level, 1), (0, 3 + 13 * row), color=colour, ha=side, va="bottom",
        xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=9.5,
    )  # fmt: skip


def map_chart(latent_map: LatentMap, theme: Theme) -> bytes:
    """The candidates on the plane, by what became of them; what is picked is drawn last."""
    names = (f"principal component {n + 1} ({latent_map.shares_2[n]:.0%} of the variance)" for n in (0, 1))
    axes = _new_axes((4.6, 3.8), theme, *names)
    size = 26 if len(latent_map.points_N2) < 500 else 12
    looks: dict[str, dict[str, Any]] = {
        PASSED_OVER: {"color": theme.not_picked, "s": size * 0.7, "alpha": 0.6, "linewidths": 0},
        GROUP_FULL: {"color": theme.not_picked, "s": size, "marker": "+", "linewidths": 0.9},
        DUPLICATE: {"color": theme.duplicate, "s": size, "marker": "x", "linewidths": 0.9},
        PICKED: {"color": theme.picked, "s": size, "linewidths": 0},
        CONTROL: {"facecolors": theme.card, "edgecolors": theme.picked, "s": 2 * size, "marker": "D", "linewidths": 1},
    }
    for fate, look in looks.items():
        axes.scatter(*latent_map.points_N2[latent_map.fate_N == fate].T, **look)
    axes.set_aspect("equal", adjustable="datalim")
    axes.locator_params(nbins=7)
    return _png(axes)


def kl_chart(kl_Z: list[float], theme: Theme) -> bytes:
    """The KL of each latent unit in nats, largest first."""
    axes = _new_axes((4.6, 2.4), theme, "number in the description (latent unit)", "information (KL, nats)")
    axes.bar(range(1, len(kl_Z) + 1), sorted(kl_Z, reverse=True), width=0.8, color=theme.muted)
    axes.set_xlim(0.4, len(kl_Z) + 0.6)
    # A collapsed posterior looks flat, and not as its own noise enlarged.
    axes.set_ylim(0, max(1.08 * max(kl_Z), 0.1))
    axes.locator_params(axis="x", integer=True, min_n_ticks=1, nbins=9)
    return _png(axes)


def shares_chart(names: list[str], shares: dict[str, list[float]], y_name: str, theme: Theme) -> bytes:
    """A row of bars for each name, the first on top. `shares`: those of every name by the colour of the theme that they
    are drawn in, from 0 to 1; the first is the topmost bar of a row."""
    axes = _new_axes((4.6, 0.9 + 0.3 * len(names)), theme, "share of all (%)", y_name)
    height = 0.8 / len(shares)
    for number, (colour, share) in enumerate(shares.items()):
        places = [place + (number - (len(shares) - 1) / 2) * height for place in range(len(names))]
        axes.barh(places, [100 * value for value in share], height, color=getattr(theme, colour))
    # From 0, also where all bars are as long or there are none.
    axes.set_xlim(0, min(100, max(1.05 * axes.dataLim.x1, 1)))
    # A label is text, also with a dollar sign in it.
    axes.set_yticks(range(len(names)), [name[:MOST_LETTERS] for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return _png(axes)


def right_chart(learned: list[int], shares: dict[str, list[Share | None]], theme: Theme) -> bytes:
    """How often the task learner was right against the number of labels that it learned from, with the intervals.
    `shares`: those of every round by the colour of the theme that they are drawn in."""
    axes = _new_axes((4.6, 2.8), theme, "labels that the task learner learned from", "right (%)")
    low, high = _limits([*map(float, learned)], max(4, 0.2 * max(learned)), (0, math.inf))
    reached = list[float]()
    for number, (colour, values) in enumerate(shares.items()):
        # Beside each other, because intervals overlap.
        places = [size + (number - 0.5) * 0.012 * (high - low) for size in learned]
        points = [(place, share) for place, share in zip(places, values, strict=True) if share]
        if not points:
            continue
        x, found = zip(*points, strict=True)
        y = [100 * share.value for share in found]
        reach = [[100 * (s.value - s.low) for s in found], [100 * (s.high - s.value) for s in found]]
        reached += [100 * end for s in found for end in (s.low, s.high)]
        looks: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.4, "elinewidth": 1.2, "capsize": 2.5}
        # What is right at 0 or 100 % is drawn whole.
        axes.errorbar(x, y, reach, color=getattr(theme, colour), clip_on=False, **looks)
    axes.set_xlim(low, high)
    axes.set_ylim(_limits(reached or [0, 100], 10, (0, 100)))
    axes.locator_params(axis="x", integer=True, min_n_ticks=1, nbins=6)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    return _png(axes)


def reference_losses(num_folds: int) -> dict[str, float]:
    """The losses, nats by name, at which every discriminator answers 0 whatever it sees."""
    one = 2 * math.log(2)
    return {"adversarial": one, "discriminator": one * num_folds, "held_out": one * num_folds}


def loss_chart(step: NDArray[np.int32], loss: NDArray[np.float32], reference: float | None, theme: Theme) -> bytes:
    """A loss against the step: single steps thin, their moving average thick, and the reference dashed."""
    axes = _new_axes((3.7, 2.3), theme, "training step", "loss (nats)")
    # A line of one point is not seen.
    axes.plot(step, loss, color=theme.muted, alpha=0.4, linewidth=0.7, marker="o" if len(step) == 1 else "")
    axes.plot(step, _smooth(loss), color=theme.ink, linewidth=1.5)
    low, high = (float(level) for level in np.quantile(loss[len(loss) // 20 :], (0.005, 0.995)))
    looks: dict[str, Any] = {"fontsize": 9, "color": theme.muted, "pad": 3}
    if reference is not None:
        low, high = min(low, reference), max(high, reference)
        axes.axhline(reference, color=theme.muted, linewidth=1.1, linestyle=_DASHED)
        axes.set_title(f"dashed: {reference:.2f}", loc="right", **looks)
    pad = max(0.12 * (high - low), 0.02 * abs(high)) or 1.0
    axes.set_ylim(low - pad, high + pad)
    if loss.max() > high + pad:
        axes.set_title(f"▲ up to {loss.max():,.{0 if loss.max() >= 100 else 2}f}", loc="left", **looks)
    axes.set_xlim(0, max(1, int(step[-1])))
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1, nbins=6)
    return _png(axes)


def smoothing_steps(num_steps: int) -> int:
    """Width of the moving average, steps; odd."""
    return num_steps // 50 * 2 + 1


def _smooth(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Centred moving average; at the ends, of what there is."""
    ones = np.ones(smoothing_steps(len(values)))
    total, count = (np.convolve(found, ones, "same") for found in (values, np.ones(len(values))))
    return np.asarray(total / count)


def _new_axes(size: tuple[float, float], theme: Theme, x_name: str, y_name: str) -> "Axes":
    """The axes of a figure of this size, inches."""
    from matplotlib.figure import Figure

    axes = Figure(size, dpi=200, layout="constrained", facecolor=theme.card).add_subplot(facecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=9)
    axes.set_xlabel(x_name, color=theme.muted, fontsize=9.5)
    axes.set_ylabel(y_name, color=theme.muted, fontsize=9.5)
    return axes


def _png(axes: "Axes") -> bytes:
    png = io.BytesIO()
    axes.figure.savefig(png, format="png")  # type: ignore[union-attr]
    return png.getvalue()
