"""What matches the globs of the pool, and is not in it yet."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.changes import log_some
from engine.campaign.folder import Campaign
from engine.campaign.stages import Log
from engine.config.texts import plural
from engine.config.toml import parse_campaign
from engine.errors import VaalError
from engine.pool.manifest import expand, read_facts, read_shards
from engine.pool.shards import Shards
from engine.storage.globs import is_pattern
from engine.storage.location import Location

ASKED = "vaal pool add"
"""Where shards were asked for, in errors."""


class News(NamedTuple):
    """The shards that match the globs of the pool and are not in it, sorted; or why that cannot be told."""

    new: list[Location]
    fault: str = ""


def shards_now(campaign: Campaign) -> Shards:
    """Every shard that ever was in the pool, where it is looked for now."""
    return read_shards(campaign.home).at_root(campaign.config.pool.root)


def news_of(campaign: Campaign) -> News:
    """What matches the globs of the pool and is not in it. Never an error: a pool that cannot be listed is said so."""
    try:
        return News(new_matches(campaign, shards_now(campaign), lambda _: None))
    except VaalError as error:
        return News([], str(error))


def news_in_words(campaign: Campaign, news: News) -> str:
    """The line about shards that are not in the pool, and what takes them in; empty where there is nothing to say."""
    if news.fault:
        return f"the pool cannot be listed, so that new shards are not seen: {news.fault}"
    if not news.new:
        return ""
    what, fix = plural(len(news.new), "new shard"), f"to take them: vaal pool {campaign.home.quoted} refresh"
    fix = "pool.follow takes them when the next round begins" if campaign.config.pool.follow else fix
    return f"{what} below the pool's globs, not in it yet, first {news.new[0]}; {fix}"


def new_matches(campaign: Campaign, listed: Shards, log: Log) -> list[Location]:
    """The matches of the globs that the pool never had, sorted. What is not below the root is left out and logged."""
    import braceexpand

    root = f"{Location.of(campaign.config.pool.root).url.rstrip('/')}/"
    found: set[Location] = set()
    for pattern in _globs(campaign):
        places = [Location.of(text) for text in braceexpand.braceexpand(pattern)]
        globs = [place for place in places if is_pattern(place)]
        # Of one that matches nothing the shards may all be gone, which is another line.
        found.update(expand([place.url for place in globs], ASKED, may_be_none=True))
    places = list(found)
    is_known = pc.is_in(pa.array([place.url for place in places], pa.string()), value_set=listed.table["url"])
    new = sorted((place for place, known in zip(places, is_known.to_pylist(), strict=True) if not known), key=str)
    log_some(log, [f"{place}: not below pool.root={root}: left out" for place in new if not place.url.startswith(root)])
    return [place for place in new if place.url.startswith(root)]


def _globs(campaign: Campaign) -> list[str]:
    """The globs of the pool as they are now: those below the root that init knew are below the present one."""
    pool, root = campaign.config.pool, Location.of(campaign.config.pool.root).url.rstrip("/")
    at_init = _root_at_init(campaign)
    urls = [f"{root}/{p.removeprefix(at_init)}" if p.startswith(at_init) else p for p in pool.shards]
    return [*urls, *(f"{root}/{pattern}" for pattern in read_facts(campaign.home).patterns)]


def _root_at_init(campaign: Campaign) -> str:
    source = campaign.home / "campaign.toml"
    return f"{Location.of(parse_campaign(source.read_bytes(), source.url).pool.root).url.rstrip('/')}/"
