"""The images of a report: read from their shards, and reduced to what the page holds."""

from collections import defaultdict
from typing import Any, NamedTuple

from PIL import Image

from engine import report_pictures as pictures
from engine.campaign import Campaign
from engine.pool import read_ranges, read_shards

Row = dict[str, Any]


class Thumbnail(NamedTuple):
    """A thumbnail as the page holds it."""

    uri: str
    is_small: bool

    @classmethod
    def of(cls, image: Image.Image) -> "Thumbnail":
        return cls(pictures.data_uri(pictures.to_png(image)), max(image.size) < pictures.THUMBNAIL_SIDE // 2)


def read_thumbnails(campaign: Campaign, groups: dict[str, list[Row]]) -> dict[str, list[Image.Image]]:
    """A thumbnail for each row of each group, in their order; a shard is opened once.

    Raises:
        ShardError: a shard is not the one listed at init, or cannot be read.
    """
    by_shard: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for group, rows in groups.items():
        for number, row in enumerate(rows):
            by_shard[row["shard"]].append((group, number))
    shards = {shard.shard: shard for shard in read_shards(campaign.home)}
    found: dict[tuple[str, int], Image.Image] = {}
    for name, places in by_shard.items():
        ranges = [(groups[group][number]["offset"], groups[group][number]["size_bytes"]) for group, number in places]
        contents = read_ranges(shards[name], ranges)
        images = (pictures.thumbnail(content, campaign.config.image) for content in contents)
        found |= dict(zip(places, images, strict=True))
    return {group: [found[group, number] for number in range(len(rows))] for group, rows in groups.items()}


def sheet(thumbnails: list[Image.Image]) -> bytes:
    """The contact sheet as PNG."""
    return pictures.to_png(pictures.contact_sheet(thumbnails))
