"""What the pages for people share: each is one HTML file that holds its pictures, and loads and runs nothing."""

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from engine.config.texts import score_text
from engine.report import charts
from engine.report.arms import HARDER
from engine.report.control_arm import WORTH_MORE
from engine.report.thumbnails import THUMBNAIL_SIDE, Identity, data_uri, to_png

MOST_LETTERS = 60
"""Of a text from outside, such as a class, that is shown among many."""


MOST_TILES = 7
"""Side by side at the top of a page."""


def render(template: str, **content: Any) -> str:
    """The page of a template of this folder.

    `content` holds `thumbnails`, as `shown_thumbnails` makes them, and `pictures`: URIs by name, if it has charts.
    """
    # Keys and messages come from the pool, classes from vendors: whoever wrote them must not write into the page.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "score": score_text,
        "share": lambda share: share.text if share else "no labels",
        "grouped": lambda value: f"{value:,}" if isinstance(value, int) else value,
        "short": short,
        "capitalise": lambda text: text[:1].upper() + text[1:],
    }
    return environment.get_template(template).render(
        light=charts.LIGHT, dark=charts.DARK, harder=HARDER, worth_more=WORTH_MORE, tile_columns=tile_columns, **content
    )


def tile_columns(number: int) -> int:
    """How many tiles stand side by side, so that none stands alone in the last row."""
    return number if number <= MOST_TILES else math.ceil(number / math.ceil(number / MOST_TILES))


def short(text: str) -> str:
    """The beginning of a text, MOST_LETTERS long at most."""
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"


def shown_thumbnails(thumbnails: dict[Identity, Image.Image]) -> dict[Identity, tuple[str, bool]]:
    """The URI of each, and whether it is so small that it is enlarged."""
    return {
        item: (data_uri(to_png(image)), max(image.size) < THUMBNAIL_SIDE // 2) for item, image in thumbnails.items()
    }
