"""A pool that grows: shards join it and leave it, each from one round on.

A round that has begun keeps the pool that it began with, so that what joins then is in the next one. Nothing is picked
any more from a shard that left, at once. All that changed is in pool/shards.parquet, which is replaced as a whole; the
files in pool/changes/ say in order what changed, and those after its version are of a run that was killed.
"""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.changes import digest_of_scores, look_at, require_some, scored_rounds
from engine.campaign.folder import Campaign
from engine.campaign.heartbeat import PROGRESS_FILE
from engine.campaign.labels import identities, read_labels
from engine.campaign.ledger import read_ledger
from engine.campaign.matching import ASKED, new_matches, news_in_words, news_of, shards_now
from engine.campaign.stages import Log
from engine.config.texts import plural
from engine.errors import InputError
from engine.pool.manifest import (
    CHANGES,
    PoolFacts,
    expand,
    look_up,
    read_facts,
    shards_at,
    write_shards,
)
from engine.pool.metadata import import_metadata
from engine.pool.shard import FORGOTTEN, GONE, Shard
from engine.pool.shards import SHARDS_SCHEMA, Shards
from engine.storage.globs import is_pattern
from engine.storage.location import Location
from engine.tables.columns import required
from engine.tables.scores import to_table

CHANGES_SCHEMA = pa.schema(
    [*required(pa.string(), "change"), *required(pa.timestamp("us", tz="UTC"), "at"), *SHARDS_SCHEMA]
)
"""A row a shard that joined, left or moved: what was done, when, and the shard as it is since."""


class Grown(NamedTuple):
    """The shards that joined, came back and left, the names of those that changed nothing, and the round from which on
    that counts."""

    joined: list[Shard]
    back: list[Shard]
    left: list[Shard]
    known: list[str]
    round: int

    @property
    def changes_anything(self) -> bool:
        return bool(self.joined or self.back or self.left)


class Held(NamedTuple):
    """The labels that shards hold, and their images that are out at a vendor."""

    labels: int
    out: int


def has_begun(campaign: Campaign) -> bool:
    """Whether the campaign's round has begun: something of its training is there."""
    folder = campaign.stage("train")
    return bool({*folder.children()} - {PROGRESS_FILE} or folder.folders())


def add(campaign: Campaign, patterns: Sequence[str]) -> Grown:
    """Take shards into the pool: paths, URLs, globs or brace ranges below its root. Globs are kept, and are looked at
    again by `take_new`. What is in the pool already changes nothing; what left it comes back.

    Raises:
        InputError: a pattern matches nothing, a shard is missing, empty or no tar, or has a name that the pool knows
            and other bytes; nothing changed then.
        ConfigError: a shard is not below the root.
    """
    root = campaign.config.pool.root
    found = shards_at(expand(patterns, ASKED), Location.of(root).url, ASKED)
    before = shards_now(campaign)
    known = before.find(found.names.to_pylist())
    _require_same(campaign, [(known[now.shard], now) for now in found if now.shard in known])
    globs = [Location.of(text).url for text in patterns if is_pattern(Location.of(text))]
    facts, below = read_facts(campaign.home), f"{Location.of(root).url.rstrip('/')}/"
    kept = tuple(dict.fromkeys((*facts.patterns, *(url.removeprefix(below) for url in globs if url.startswith(below)))))
    return _take(campaign, "add", found, before, facts._replace(patterns=kept))


def take_new(campaign: Campaign, log: Log) -> Grown:
    """Take in every new shard that matches the globs of the pool. Shards whose files are gone leave it, and those that
    were gone and are there again come back.

    Raises InputError if the pool cannot be listed, or all of it is gone; nothing changed then.
    """
    listed = shards_now(campaign)
    here = listed.where(~listed.have_left)
    are_there = look_up(here).are_there
    require_some(here, are_there)
    away = listed.where(listed.left_as(GONE))
    # Its bytes are looked at before they are used.
    back = away.where(look_up(away).are_there).with_column("mtime_ns", 0)
    new = shards_at(new_matches(campaign, listed, log), Location.of(campaign.config.pool.root).url, ASKED)
    number = campaign.round + has_begun(campaign)
    gone = [shard._replace(left=max(number, shard.joined), why_left=GONE) for shard in here.where(~are_there)]
    return _take(campaign, "refresh", [*new, *back], listed, read_facts(campaign.home), gone)


def forget(campaign: Campaign, names: Sequence[str]) -> Grown:
    """Let shards leave the pool: nothing is picked from them any more, and their labels stay. `names` are URLs, names
    in the pool, or globs of either.

    Raises InputError for one that the pool does not have, and where none would be left; nothing changed then.
    """
    listed, number = shards_now(campaign), campaign.round + has_begun(campaign)
    wanted: dict[str, Shard] = {}
    for text in names:
        url = Location.of(text).url
        named = [*_named(listed, text, url)]
        found = [shard for shard in named if shard.why_left != FORGOTTEN]
        if not named:
            raise InputError(
                f"vaal pool forget {text}: no such shard in the pool; see: vaal pool {campaign.home.quoted} list"
            )
        wanted |= {shard.shard: shard for shard in found}
    if wanted and not (~listed.have_left & ~listed.are_named(wanted)).any():
        raise InputError("vaal pool forget: no shard would be left in the pool; keep one, or start a new campaign")
    left = [s._replace(left=s.left if s.left is not None else max(number, s.joined)) for s in wanted.values()]
    left = [shard._replace(why_left=FORGOTTEN) for shard in left]
    if left:
        write_changed(campaign, "forget", left)
    return Grown([], [], left, [], number)


def follow(campaign: Campaign, log: Log) -> None:
    """At the start of a round: take new shards in where pool.follow says so, else say that they are there."""
    if not campaign.config.pool.follow or has_begun(campaign):
        if words := news_in_words(campaign, news_of(campaign)):
            log(words)
        return
    for line in in_words(take_new(campaign, log)):
        log(line)


def in_words(grown: Grown) -> list[str]:
    """What changed, a line for each kind."""
    kinds = (("joined the pool", grown.joined), ("came back", grown.back), ("left the pool", grown.left))
    found = []
    for words, shards in kinds:
        if shards:
            why = ": the files are gone, and their labels stay" if shards[0].why_left == GONE else ""
            found.append(f"{plural(len(shards), 'shard')} {words}, first {shards[0].url}{why}")
    return found


def held_by(campaign: Campaign, names: set[str]) -> Held:
    """How many labels shards hold, and of how many of their images answers are awaited."""
    ledger = read_ledger(campaign)
    is_out = ledger.waited_for & ~ledger.gold_R
    out = {item for item in identities(ledger.rows(["shard", "key"], is_out)) if item[0] in names}
    labelled = read_labels(campaign.home)["shard"].cast(pa.string())
    return Held(pc.sum(pc.is_in(labelled, value_set=pa.array([*names], pa.string()))).as_py() or 0, len(out))


def write_changed(campaign: Campaign, change: str, changed: Sequence[Shard], facts: PoolFacts | None = None) -> None:
    """Write what changed, and then the pool: from that on, it is so. A file that a killed run left is replaced."""
    facts, at = facts or read_facts(campaign.home), datetime.now(UTC)
    table = to_table([(change, at, *shard) for shard in changed], CHANGES_SCHEMA)
    (campaign.home / f"{CHANGES}/{facts.version + 1:06d}.parquet").write_table(table)
    write_shards(campaign.home, shards_now(campaign).merged(changed), facts._replace(version=facts.version + 1))


def _named(shards: Shards, text: str, url: str) -> Iterator[Shard]:
    """The one that has a name or URL; where none has, those that match it as a glob."""
    # A name may have a bracket in it, and would match other shards as a glob.
    exact = shards.where(shards.are_named([text]) | pc.equal(shards.table["url"], url).to_numpy())
    if len(exact):
        yield from exact
        return
    globs = [re.compile(fnmatch.translate(one)).match for one in (text, url)]
    yield from (shard for shard in shards if globs[0](shard.shard) or globs[1](shard.url))


def _require_same(campaign: Campaign, pairs: Iterable[tuple[Shard, Shard]]) -> None:
    """Raises InputError if a shard has other bytes than the pool knows under its name."""
    scored = scored_rounds(campaign, "")
    image, companion = campaign.config.image, campaign.config.embedding_member
    for before, now in pairs:
        is_same = before.etag_or_mtime == now.etag_or_mtime and before.size_bytes == now.size_bytes
        if not is_same and before.size_bytes == now.size_bytes:
            digest = "" if companion else digest_of_scores(before, scored)
            # What was never scored has no hashes: a store's mark tells, and a time alone does not.
            can_tell = bool(digest or companion) or now.etag_or_mtime.startswith("etag:")
            is_same = not can_tell or look_at(before, [], digest, image, companion).is_same
        if not is_same:
            raise InputError(
                f"{ASKED} {now.url}: the pool has {before.shard} with other bytes ({before.size_bytes:,}, now "
                f"{now.size_bytes:,}); give it another name; where it was meant to change, the next "
                "round reads it again"
            )


def _take(
    campaign: Campaign,
    change: str,
    found: Sequence[Shard],
    listed: Shards,
    facts: PoolFacts,
    gone: Sequence[Shard] = (),
) -> Grown:
    """Write the pool with what was found in it, and without what is gone."""
    number = campaign.round + has_begun(campaign)
    before = listed.find(shard.shard for shard in found)
    joined = [shard._replace(joined=number) for shard in found if shard.shard not in before]
    back = [_again(before[now.shard], now, number) for now in found if _has_left(before.get(now.shard))]
    known = [now.shard for now in found if now.shard in before and not _has_left(before[now.shard])]
    grown = Grown(joined, back, list(gone), known, number)
    if not grown.changes_anything and facts == read_facts(campaign.home):
        return grown
    if joined and (metadata := campaign.config.pool.metadata):
        names = listed.merged(joined).names.to_pylist()
        import_metadata(campaign.home, Location.of(metadata), names)
    write_changed(campaign, change, [*joined, *back, *gone], facts)
    return grown


def _has_left(shard: Shard | None) -> bool:
    return shard is not None and shard.left is not None


def _again(before: Shard, now: Shard, number: int) -> Shard:
    """A shard that comes back: where it was never missed by a round, as if it had not left."""
    was_missed = before.left is not None and before.left < number
    return now._replace(
        joined=number if was_missed else before.joined, left=None, why_left=None,
        num_items=before.num_items, version=before.version, etag_or_mtime=before.etag_or_mtime, mtime_ns=0,
    )  # fmt: skip
