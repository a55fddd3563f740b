"""Shards to chunks: read in several attempts under a watchdog, and quarantined whole where no attempt succeeds."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pyarrow as pa

from engine.errors import InputError
from engine.pool.identity import ALONE, Groups
from engine.pool.items import read_shard
from engine.pool.samples import Item, Unused
from engine.pool.shard import Place, Shard, read_images
from engine.pool.sight import Sight
from engine.scoring.chunks import Chunk, chunk_items
from engine.scoring.watchdog import Attempts, ShardHistory, Watchdog
from engine.tables.scores import BY_PERSON, FORGOTTEN

DEATHS_PER_ATTEMPT = 5
"""A process may die for a reason other than its shard, so deaths count less than failures."""


class Reading(NamedTuple):
    """How shards are read: see `Sight` and `ScoreConfig`. `forgotten` are (shard, key) that the networks
    do not see."""

    sight: Sight
    num_folds: int
    attempts: int
    stall_seconds: float
    fold_round: int = 0
    groups: Groups = ALONE
    forgotten: frozenset[tuple[str, str]] = frozenset()


def read_chunks(
    shard: Shard, reading: Reading, attempts: Attempts, places: list[Place] | None = None
) -> Iterator[pa.Table]:
    """The chunks of a shard, or of the images at some places of it, as rows, in order. A shard that cannot be read ends
    in a row with the reason.

    An attempt that fails is followed by another one, which does not yield again what was yielded before.
    """
    past, made = attempts.begin(shard.shard), 0
    failure = _give_up(past, reading)
    with Watchdog(reading.stall_seconds, partial(attempts.stalled, shard.shard)) as watchdog:
        for _ in range(0 if failure else reading.attempts):
            try:
                source = partial(_items, shard, reading.sight, places)
                for row in _attempt(shard, source, reading, (made, past.items), watchdog):
                    made += 1
                    yield row
            except InputError as error:
                failure = f"{error} ({reading.attempts} attempts)" if reading.attempts > 1 else str(error)
            else:
                attempts.done(shard.shard)
                return
    attempts.done(shard.shard)
    yield _chunk(shard, made, reading).row(0, listed=0, failure=failure)


def _items(shard: Shard, sight: Sight, places: list[Place] | None, unused: list[Unused]) -> Iterator[Item]:
    """The items of a shard, or those at some places; what is in none is put into the list at their end."""
    if places is None:
        unused.append((yield from read_shard(shard, sight.image, sight.companion)))
        return
    for place, content in zip(places, read_images(shard, places), strict=True):
        yield Item(*place[:3], content, "")
    unused.append(Unused())


def _chunk(shard: Shard, number: int, reading: Reading) -> Chunk:
    return Chunk(shard.shard, number, reading.sight, reading.num_folds, reading.fold_round, reading.groups)


def _give_up(past: ShardHistory, reading: Reading) -> str:
    """Why the shard is not read again; empty when it is."""
    if past.stalls >= reading.attempts:
        return f"reading made no progress for score.stall_seconds={reading.stall_seconds:g}, {past.stalls} times"
    if past.begun >= DEATHS_PER_ATTEMPT * reading.attempts:
        return f"the process that read the shard died {past.begun} times"
    return ""


def _attempt(
    shard: Shard,
    source: Callable[[list[Unused]], Iterator[Item]],
    reading: Reading,
    past: tuple[int, frozenset[str]],
    watchdog: Watchdog,
) -> Iterator[pa.Table]:
    """The chunks of the items of `source`, as rows: from the number on that the `past` says, with what stalled then."""
    chunk, listed, position = _chunk(shard, 0, reading), 0, 0
    first, stalled = past
    unused: list[Unused] = []
    sight = reading.sight
    size, items = chunk_items(sight), source(unused)
    watchdog.start("")
    see = sight.all_of(shard)
    for item in items:
        listed += 1
        if item.key in stalled:
            chunk.refuse(item, "Stalled", f"decoding took longer than score.stall_seconds={reading.stall_seconds:g}")
        elif (shard.shard, item.key) in reading.forgotten:
            chunk.refuse(item, FORGOTTEN, "a person decided that it is to be forgotten", BY_PERSON)
        elif chunk.number >= first:
            watchdog.start(item.key)
            chunk.add(item, see)
        if listed % size == 0:
            watchdog.stop()
            end = item.offset + item.size_bytes
            if chunk.number >= first:
                yield chunk.row(end - position)
            chunk, position = (
                _chunk(shard, chunk.number + 1, reading),
                end,
            )
        watchdog.start("")
    watchdog.stop()
    yield chunk.row(shard.size_bytes - position, listed=listed, unused=unused[0])
