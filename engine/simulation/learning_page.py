"""The page about a simulation: one HTML file with its pictures, for a person who decides about labels."""

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from engine.report.charts import THEMES
from engine.report.thumbnails import data_uri
from engine.simulation import findings as words
from engine.simulation.curve_charts import Curves, chart, colours_of
from engine.simulation.findings import Findings
from engine.simulation.strategies import RANDOM

METRIC_NAMES = {
    "share_missing": "Share of picks from classes without a first label",
    "distance": "Distance of the labels' classes from the pool's (total variation)",
    "auc": "AUC of the discriminators",
    "speaks": "Share of seeds in which the gate speaks",
    "lacking": "Share of the pool that lacks labels, before the batch",
    "seconds_train_and_score": "Seconds to train and score",
    "seconds_score": "Of them to score",
    "seconds_select": "Seconds to select",
}


def render(found: Findings) -> str:
    """The page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = Path(__file__).with_name("learning_page.html.j2").read_text(encoding="utf-8")
    pictures = {
        f"{task}-{kind}{suffix}": data_uri(chart(_curves(found, task), kind, theme))
        for task in found.tasks
        for kind in ("accuracy", "gap")
        for suffix, theme in THEMES.items()
    }
    return environment.from_string(source).render(
        found=found, words=words, pictures=pictures, themes=THEMES, colours=colours_of(found.strategies), random=RANDOM,
        metric_names=METRIC_NAMES, number=_number,
    )  # fmt: skip


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}".replace("-", "−")


def _curves(found: Findings, name: str) -> Curves:
    task = found.tasks[name]
    return Curves(task.curves, task.gaps, found.num_labels_K, found.bought, words.metric_name(name))
