"""The images of a report: read from their shards, and reduced to what the page holds."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from PIL import Image

from engine.campaign.folder import Campaign
from engine.pool.manifest import read_ranges, read_shards
from engine.report import pictures
from engine.report.survey import Identity

Row = dict[str, Any]


class Thumbnail(NamedTuple):
    """A thumbnail as the page holds it."""

    uri: str
    is_small: bool

    @classmethod
    def of(cls, image: Image.Image) -> "Thumbnail":
        return cls(pictures.data_uri(pictures.to_png(image)), max(image.size) < pictures.THUMBNAIL_SIDE // 2)


def read_thumbnails(campaign: Campaign, rows: Iterable[Row]) -> dict[Identity, Image.Image]:
    """A thumbnail of each item of these rows. A shard is opened once.

    Raises:
        ShardError: a shard is not the one listed at init, or cannot be read.
    """
    by_shard: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for row in rows:
        by_shard[row["shard"]][row["key"]] = row["offset"], row["size_bytes"]
    shards = {shard.shard: shard for shard in read_shards(campaign.home)}
    found: dict[Identity, Image.Image] = {}
    for name, ranges in by_shard.items():
        contents = read_ranges(shards[name], list(ranges.values()))
        images = (pictures.thumbnail(content, campaign.config.image) for content in contents)
        found |= {(name, key): image for key, image in zip(ranges, images, strict=True)}
    return found


def contact_sheet_png(thumbnails: dict[Identity, Image.Image], rows: list[Row]) -> bytes:
    """The thumbnails of these rows on one sheet."""
    return pictures.to_png(pictures.contact_sheet([thumbnails[row["shard"], row["key"]] for row in rows]))
