"""The images of a report: read from their shards, and reduced to what the page holds."""

import base64
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from engine.campaign.decisions import forgotten
from engine.campaign.folder import Campaign
from engine.campaign.places import known_of, read_moved
from engine.config.input_options import ImageConfig
from engine.pool.images import open_upright
from engine.pool.manifest import read_shards
from engine.pool.shard import ChangedShardError, Place, ShardError, read_what_is_left
from engine.tables.rows import Row

THUMBNAIL_SIDE = 128
"""Longest side of a thumbnail, pixels. Smaller images keep their pixels and are enlarged where they are shown."""
READ_THREADS = 16
BLANK = Image.new("L", (THUMBNAIL_SIDE, THUMBNAIL_SIDE), 127)
"""Stands for an image that is in its shard no more, or was forgotten."""
Identity = tuple[str, str]
"""(shard, key)."""


def read_thumbnails(
    campaign: Campaign, rows: Iterable[Row], on_fault: Callable[[ShardError], None] | None = None
) -> dict[Identity, Image.Image]:
    """A thumbnail of each item of these rows, BLANK for one that is in its shard no more or was forgotten, which is
    not read. A shard is opened once.

    Args:
        on_fault: is given the fault of a shard that cannot be read, whose images are then BLANK.

    Raises ShardError if a shard changes meanwhile, or, without `on_fault`, cannot be read.
    """
    moved, gone = {known_of(row): row for row in read_moved(campaign.home)}, forgotten(campaign.home)
    by_shard: dict[str, dict[str, Place | None]] = defaultdict(dict)
    for row in rows:
        known = {"content_hash": None, **row}
        place = {**known, **moved.get(known_of(known), {"fault": None})}
        is_here = not place["fault"] and (row["shard"], row["key"]) not in gone
        by_shard[row["shard"]][row["key"]] = Place(*(place[name] for name in Place._fields)) if is_here else None
    shards = read_shards(campaign.home).at_root(campaign.config.pool.root).find(by_shard)
    found: dict[Identity, Image.Image] = {}

    def read(name: str) -> tuple[dict[Identity, Image.Image], ShardError | None]:
        left = {key: place for key, place in by_shard[name].items() if place}
        seen = dict.fromkeys(((name, key) for key in by_shard[name]), BLANK)
        try:
            for key, content in zip(left, read_what_is_left(shards[name], list(left.values())), strict=True):
                if content is not None:
                    seen[name, key] = thumbnail(content, campaign.config.image)
        except ShardError as error:
            if not on_fault or isinstance(error, ChangedShardError):
                raise
            return seen, error
        return seen, None

    with ThreadPoolExecutor(READ_THREADS) as threads:
        for seen, fault in threads.map(read, by_shard):
            found |= seen
            if fault and on_fault:
                on_fault(fault)
    return found


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
        left, top = (THUMBNAIL_SIDE - shown.width) // 2, (THUMBNAIL_SIDE - shown.height) // 2
        sheet.paste(shown, (column * pitch + left, row * pitch + top))
    return sheet


def to_png(image: Image.Image) -> bytes:
    """The image losslessly."""
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return png.getvalue()


def data_uri(png: bytes) -> str:
    """The picture as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
