"""A pool that moved: the same shards below another root, which their bytes show before anything changes."""

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.campaign.changes import scored_rounds
from engine.campaign.folder import Campaign
from engine.campaign.growing import write_changed
from engine.campaign.matching import shards_now
from engine.campaign.opening import open_campaign
from engine.campaign.positions import labelled_positions
from engine.campaign.scored_shards import file_name
from engine.campaign.stages import Log, Progress
from engine.config.texts import plural
from engine.errors import InputError
from engine.pool.manifest import look_up, shards_at
from engine.pool.shard import Place, Shard, read_what_is_left
from engine.pool.shards import Shards
from engine.storage.location import Location

SAMPLE_IMAGES, SAMPLE_SHARDS = 1000, 250
"""Without --check all so many images are compared, in as many shards at most."""
READ_THREADS = 16
ASKED = "vaal pool move"
Places = Callable[[Shard], list[Place]]


class Moved(NamedTuple):
    """The root of the pool now, how many images in how many shards were compared, what was not, in words; and whether
    the root is another one."""

    root: str
    images: int
    shards: int
    words: str
    changed: bool


def move(campaign: Campaign, root: str, on_progress: Progress, log: Log, *, checks_all: bool) -> Moved:
    """Look for the pool's shards below another root from now on, if they are there with the bytes that are known.

    Every shard must be there with its size. The hashes that are kept, of scored and labelled images, are compared with
    the bytes there: those of a seeded sample, or of all.

    Raises InputError where shards are missing or have other bytes: the text names the first and counts them. Nothing
    changed then.
    """
    folder, listed = Location.of(root).url, shards_now(campaign)
    if folder == Location.of(campaign.config.pool.root).url:
        return Moved(folder, 0, 0, "", changed=False)
    here = listed.where(~listed.have_left)
    _require_sizes(here, folder)
    there = shards_at([Location(url) for url in here.at_root(folder).table["url"].to_pylist()], folder, ASKED)
    now = here
    for name in ("url", "etag_or_mtime", "mtime_ns"):
        now = now.with_column(name, there.table[name])
    known, places_of = _known(campaign, here)
    drawn = known if checks_all else _sample(known, campaign.config.select.seed)
    each = None if checks_all else -(-SAMPLE_IMAGES // max(1, len(drawn)))
    num_images, is_part = _compare(now, drawn, places_of, each, campaign.config.select.seed, on_progress)
    words, unknown = list[str](), len(here) - len(known)
    if unknown:
        words.append(f"{plural(unknown, 'shard')} of which no hash is kept: the sizes alone")
    if is_part or len(drawn) < len(known):
        words.append("the images outside of the sample; to compare all: --check all")
    write_changed(campaign, "move", now)
    # From this on the pool is there. A run that is killed before it has the old root, and looks at the bytes again.
    open_campaign(campaign.home.url, [f"pool.root={folder}"])
    log(f"pool.root={folder}")
    return Moved(folder, num_images, len(drawn), "; ".join(words), changed=True)


def _require_sizes(here: Shards, folder: str) -> None:
    there = here.at_root(folder)
    found = look_up(there)
    missing, others = there.where(~found.are_there), there.where(found.are_there & (found.size_N != there.sizes))
    for bad, what, fix in ((missing, "missing", "copy them there"), (others, "of another size", "copy them again")):
        if bad:
            first = bad[0].url
            raise InputError(
                f"{ASKED} --root {folder}: {len(bad):,} of {plural(len(here), 'shard')} are {what}, first {first}; "
                f"{fix}, and repeat the command; nothing changed"
            )


def _known(campaign: Campaign, here: Shards) -> tuple[list[Shard], Places]:
    """The shards of which hashes are kept, and what gives the places of a shard's images with their hashes."""
    scored, labelled = scored_rounds(campaign, ""), defaultdict[str, list[Place]](list)
    for row in labelled_positions(campaign.home).to_pylist():
        if row["content_hash"]:
            labelled[row.pop("shard")].append(Place(**row))

    def file_of(shard: Shard) -> Location | None:
        names = ((one, file_name(shard, one.key)) for one in scored)
        return next((one.home / "scores" / name for one, name in names if name in one.files), None)

    def places_of(shard: Shard) -> list[Place]:
        if not (file := file_of(shard)):
            return labelled[shard.shard]
        table: pa.Table = file.read_table([*Place._fields])
        return [Place(**row) for row in table.to_pylist()]

    return [shard for shard in here if file_of(shard) or shard.shard in labelled], places_of


def _sample(known: list[Shard], seed: int) -> list[Shard]:
    size = min(len(known), SAMPLE_SHARDS)
    chosen = np.random.default_rng(seed).choice(len(known), size, replace=False)
    return [known[place] for place in sorted(chosen.tolist())]


def _compare(
    now: Shards, drawn: list[Shard], places_of: Places, each: int | None, seed: int, on_progress: Progress
) -> tuple[int, bool]:
    """Compare up to `each` images of the drawn shards. Returns their number, and whether the shards have more. Raises
    InputError for other bytes."""

    def other_bytes(numbered: tuple[int, Shard]) -> tuple[list[str], int, bool]:
        number, shard = numbered
        places = places_of(shard)
        is_part = each is not None and len(places) > each
        if each is not None and is_part:
            rng = np.random.default_rng([seed, number])
            places = [places[at] for at in sorted(rng.choice(len(places), each, replace=False).tolist())]
        there = now.named(shard.shard)
        found = zip(places, read_what_is_left(there, places), strict=True)
        others = [f"{there.url} (item {place.key})" for place, content in found if content is None]
        return others, len(places), is_part

    results = list[tuple[list[str], int, bool]]()
    with ThreadPoolExecutor(READ_THREADS) as threads:
        for result in threads.map(other_bytes, enumerate(drawn)):
            results.append(result)
            on_progress(len(results) / len(drawn), f"{len(results):,} of {len(drawn):,} shards compared")
    others, count = [one for bad, *_ in results for one in bad], sum(size for _, size, _ in results)
    if others:
        num_shards = sum(bool(bad) for bad, *_ in results)
        raise InputError(
            f"{ASKED}: {len(others):,} of {plural(count, 'image')} in {plural(num_shards, 'shard')} have other bytes "
            f"than those that are known, first {others[0]}; copy the shards again; nothing changed"
        )
    return count, any(is_part for *_, is_part in results)
