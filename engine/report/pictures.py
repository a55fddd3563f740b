"""The pictures of a report: thumbnails, contact sheets and charts, all as PNG; charts are drawn light or dark."""

import base64
import io
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.config.options import ImageConfig
from engine.pool.images import open_upright
from engine.report.latent_map import Plane
from engine.report.survey import Bins
from engine.tables.selections import CONTROL, DUPLICATE, PASSED_OVER, PICKED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THUMBNAIL_SIDE = 128
"""Longest side of a thumbnail, pixels. Smaller images keep their pixels and are enlarged where they are shown."""
_DPI = 200
_MOST_POINTS = 4000


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
THEMES = {"light": LIGHT, "dark": DARK}


def data_uri(png: bytes) -> str:
    """The picture as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def thumbnail(content: bytes, image: ImageConfig) -> Image.Image:
    """An image file upright, at its own aspect ratio, reduced to THUMBNAIL_SIDE; smaller images keep their pixels."""
    upright = open_upright(content, THUMBNAIL_SIDE, image)
    if upright.mode not in ("L", "LA", "RGB", "RGBA"):
        upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    upright.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    # A new image, because Pillow would write the old one's colour profile again, which can outweigh a thumbnail.
    return Image.frombytes(upright.mode, upright.size, upright.tobytes())


def contact_sheet(thumbnails: list[Image.Image]) -> Image.Image:
    """All thumbnails in rows of eight; small ones enlarged by a whole factor, nearest neighbour."""
    num_columns, gap = min(8, len(thumbnails)), 4
    pitch = THUMBNAIL_SIDE + gap
    sheet = Image.new("RGBA", (num_columns * pitch - gap, math.ceil(len(thumbnails) / num_columns) * pitch - gap))
    for number, small in enumerate(thumbnails):
        factor = max(1, THUMBNAIL_SIDE // max(small.size))
        shown = small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST)
        row, column = divmod(number, num_columns)
        left, top = (
            column * pitch + (THUMBNAIL_SIDE - shown.width) // 2,
            row * pitch + (THUMBNAIL_SIDE - shown.height) // 2,
        )
        sheet.paste(shown, (left, top))
    return sheet


def to_png(image: Image.Image) -> bytes:
    """The image losslessly."""
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return png.getvalue()


class Levels(NamedTuple):
    """The highest logit that the query picked, and that of a candidate; None when the logits did not decide."""

    picked: float | None = None
    candidate: float | None = None


def histogram_chart(bins: Bins, levels: Levels, theme: Theme) -> bytes:
    """Densities of the labelled images and of those that could be picked, of which the picked ones in their colour."""
    figure, axes = _new_chart(7.2, 3.2, theme)
    width = bins.edges[1] - bins.edges[0]
    labelled, picked = bins.counts["labelled"], bins.counts["picked"]
    unlabelled = picked + bins.counts["not_picked"]
    scale = 1 / (max(1, unlabelled.sum()) * width)
    axes.stairs(unlabelled * scale, bins.edges, baseline=picked * scale, fill=True, color=theme.not_picked,
                label="unlabelled, not picked")  # fmt: skip
    axes.stairs(picked * scale, bins.edges, fill=True, color=theme.picked, label="picked")
    if labelled.any():
        axes.stairs(labelled / (labelled.sum() * width), bins.edges, color=theme.labelled, linewidth=1.6,
                    label="labelled")  # fmt: skip
    axes.margins(x=0)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
    if levels.picked is not None:
        axes.axvspan(bins.edges[0], levels.picked, color=theme.picked, alpha=0.09, linewidth=0)
        _draw_level(axes, bins, levels.picked, _Line("highest picked", 1.2, -4, 0.3, theme.picked))
    if levels.candidate is not None and levels.candidate != levels.picked:
        _draw_level(axes, bins, levels.candidate, _Line("highest candidate", 0.7, -16, 0.75, theme.ink))
    axes.set_xlabel("labelled-logit (natural log of the odds of being labelled)")
    axes.set_ylabel("density (share per unit of logit)")
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    return _finish(figure, axes, theme)


class _Line(NamedTuple):
    """A level's words and looks: width, and the place of the words below the top, in points; the share of the axis from
    which on they stand left of it."""

    text: str
    width: float
    below: float
    left_from: float
    colour: str


def _draw_level(axes: "Axes", bins: Bins, level: float, line: _Line) -> None:
    axes.axvline(level, color=line.colour, linewidth=line.width, linestyle=(0, (4, 2)))
    on_left = level > bins.edges[0] + line.left_from * (bins.edges[-1] - bins.edges[0])
    axes.annotate(
        f"{line.text}: {level:.2f}".replace("-", "−"), (level, 1), (-5 if on_left else 5, line.below), va="top",
        xycoords=("data", "axes fraction"), textcoords="offset points", ha="right" if on_left else "left", fontsize=9,
        color=line.colour,
    )  # fmt: skip


def map_chart(plane: Plane, theme: Theme) -> bytes:
    """The candidates on the plane, by what became of them; what is picked is drawn last."""
    figure, axes = _new_chart(7.2, 4.4, theme)
    size = 26 if len(plane.points_N2) < 500 else 12
    looks: dict[str, dict[str, Any]] = {
        PASSED_OVER: {"color": theme.not_picked, "s": size * 0.7, "alpha": 0.6, "linewidths": 0},
        DUPLICATE: {"color": theme.duplicate, "s": size, "marker": "x", "linewidths": 0.9},
        PICKED: {"color": theme.picked, "s": size, "linewidths": 0},
        CONTROL: {"facecolors": theme.card, "edgecolors": theme.picked, "s": 2 * size, "marker": "D", "linewidths": 1},
    }
    names = {DUPLICATE: "duplicates", CONTROL: "control picks"}
    for fate, look in looks.items():
        is_so = plane.fate_N == fate
        if is_so.any():
            axes.scatter(*plane.points_N2[is_so].T, label=names.get(fate, fate), **look)
    first, second = (f"principal axis {n + 1} ({100 * plane.shares[n]:.0f} % of the variance)" for n in (0, 1))
    axes.set_xlabel(first)
    axes.set_ylabel(second)
    axes.set_aspect("equal", adjustable="datalim")
    axes.locator_params(nbins=7)
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9, ncols=4, loc="lower right", bbox_to_anchor=(1, 1),
                markerscale=1.5, handletextpad=0.3)  # fmt: skip
    return _finish(figure, axes, theme)


def kl_chart(kl_Z: list[float], theme: Theme) -> bytes:
    """The KL of each latent unit in nats, largest first."""
    figure, axes = _new_chart(5.2, 2.6, theme)
    axes.bar(range(1, len(kl_Z) + 1), sorted(kl_Z, reverse=True), width=0.8, color=theme.muted)
    axes.set_xlim(0.4, len(kl_Z) + 0.6)
    # A collapsed posterior looks flat, and not as its own noise enlarged.
    axes.set_ylim(0, max(1.08 * max(kl_Z), 0.1))
    axes.locator_params(axis="x", integer=True, nbins=9)
    axes.set_xlabel("latent unit, by its KL")
    axes.set_ylabel("KL (nats)")
    return _finish(figure, axes, theme)


class Reference(NamedTuple):
    """A level to compare a curve with."""

    level: float
    label: str


def reference_losses(num_folds: int) -> dict[str, Reference]:
    """The losses at which every discriminator answers 0 whatever it sees, by name; the transductive loss has none."""
    factor = f"{num_folds} × " if num_folds > 1 else ""
    knows_nothing = Reference(2 * math.log(2) * num_folds, f"knows nothing: {factor}2 ln 2")
    references = {"adversarial": Reference(2 * math.log(2), "pools look alike: 2 ln 2"), "discriminator": knows_nothing}
    return references | ({"held_out": knows_nothing} if num_folds > 1 else {})


def loss_chart(step: NDArray[np.int32], loss: NDArray[np.float32], reference: Reference | None, theme: Theme) -> bytes:
    """A loss against the step: single steps thin, their moving average thick."""
    figure, axes = _new_chart(3.7, 2.3, theme)
    stride = math.ceil(len(step) / _MOST_POINTS)
    axes.plot(step[::stride], loss[::stride], color=theme.muted, alpha=0.4, linewidth=0.7)
    axes.plot(step, _smooth(loss), color=theme.ink, linewidth=1.5)
    settled = loss[len(loss) // 20 :]
    low, high = (float(level) for level in np.quantile(settled, (0.005, 0.995)))
    if reference is not None:
        low, high = min(low, reference.level), max(high, reference.level)
        axes.axhline(reference.level, color=theme.muted, linewidth=1.1, linestyle=(0, (4, 2)))
        axes.annotate(
            reference.label, (1, reference.level), (0, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="bottom", fontsize=8, color=theme.muted,
        )  # fmt: skip
    pad = max(0.12 * (high - low), 0.02 * abs(high)) or 1.0
    axes.set_ylim(low - pad, high + pad)
    if loss.max() > high + pad:
        axes.annotate(
            f"▲ up to {loss.max():,.{0 if loss.max() >= 100 else 2}f}", (0.06, 1), (0, -2), xycoords="axes fraction",
            textcoords="offset points", ha="left", va="top", fontsize=8, color=theme.muted,
        )  # fmt: skip
    axes.set_xlim(0, max(1, int(step[-1])))
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats)")
    return _finish(figure, axes, theme)


def smoothing_steps(num_steps: int) -> int:
    """Width of the moving average, steps; odd."""
    return num_steps // 50 * 2 + 1


def _smooth(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Centred moving average; at the ends, of what there is."""
    ones = np.ones(smoothing_steps(len(values)))
    total: NDArray[np.float64] = np.convolve(values, ones, "same")
    return total / np.convolve(np.ones(len(values)), ones, "same")


def _new_chart(width: float, height: float, theme: Theme) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor=theme.card)
    return figure, figure.add_subplot(facecolor="none")


def _finish(figure: "Figure", axes: "Axes", theme: Theme) -> bytes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=8.5)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.muted, fontsize=9)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
