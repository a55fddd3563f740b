"""The labelled images, decoded once for all passes, and the order in which streams draw them."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.campaign.positions import Position
from engine.errors import InputError
from engine.pool.shard import Place
from engine.training.streams import READ_THREADS, Pool

FEW_LABELLED = 32
"""With fewer labelled items per stream, every stream draws from all of them: the parts would be too unequal."""
Decoded = tuple[str, str, NDArray[Any]]
"""shard, key, and what the networks see."""


class Part(NamedTuple):
    """A worker's rank, 0 to world - 1. It reads streams rank, rank + world, ..."""

    rank: int
    world: int

    def streams(self, num_streams: int) -> range:
        return range(self.rank, num_streams, self.world)


class Cache(NamedTuple):
    """Where labelled items are kept, decoded: a file of arrays of this shape and dtype. `read` gives those at some
    positions with the numbers of these, without the items of which that is impossible."""

    file: Path
    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[list[Position]], Iterator[tuple[int, NDArray[Any]]]]


def as_seen(pool: Pool, file: Path) -> Cache:
    """A cache of what the networks see."""
    return Cache(file, pool.sight.shape, pool.sight.dtype, partial(decoded, pool))


class Images(NamedTuple):
    """Items of one pool: what the networks see, pixels (N, H, W, C) uint8 or embeddings (N, D) float32; fold (N,)
    int64; for judging also the number of each item's group (N,) int64, where the pool has groups."""

    seen_N: NDArray[Any]
    fold_N: NDArray[np.int64]
    group_N: NDArray[np.int64] | None = None

    def at(self, rows: slice | NDArray[np.int64]) -> "Images":
        return Images(self.seen_N[rows], self.fold_N[rows])


class Labelled(NamedTuple):
    """The decoded labelled images of some streams, their numbers in the list of labels, the rows of each stream, and
    the numbers of those that do not decode, held out or not."""

    images: Images
    number_N: NDArray[np.int64]
    rows: dict[int, NDArray[np.int64]]
    not_decoded: list[int]

    def draw(self, stream: int, seed: tuple[int, ...], begin: int, count: int) -> NDArray[np.int64]:
        """Rows `begin` to `begin + count` of a stream's endless passes, each pass in a new order."""
        rows = self.rows[stream]
        drawn: list[NDArray[np.int64]] = []
        for number in range(begin // len(rows), (begin + count - 1) // len(rows) + 1):
            order = np.random.default_rng((*seed, stream, number)).permutation(rows)
            drawn.append(order[max(begin - number * len(rows), 0) : begin + count - number * len(rows)])
        return np.concatenate(drawn)


def cache_labelled(pool: Pool, positions: Sequence[Position], streams: range, num_streams: int, file: Path) -> Labelled:
    """The labelled images of these streams that train, decoded into `file`, without those that do not decode.

    The streams' share of those that are held out is decoded too: what does not is known before anything trains.

    Raises InputError if a shard or an image in it changed, or no image of a stream decodes.
    """
    is_held_out = [pool.is_held_out(*position[:2]) for position in positions]
    training, held_out = ([n for n, is_out in enumerate(is_held_out) if is_out == which] for which in (False, True))
    tried = [number for stream in streams for number in held_out[stream::num_streams]]
    return _cached(pool, positions, _dealt(training, streams, num_streams), tried, as_seen(pool, file), keeps=False)


def cache_for_task(
    pool: Pool, positions: Sequence[Position], split: tuple[list[int], list[int]], part: Part, num_streams: int,
    cache: Cache,
) -> tuple[Labelled, NDArray[np.int64]]:  # fmt: skip
    """As `cache_labelled`, for the task learner: `split` are the numbers of the images that it trains on, and of those
    by which it is judged. Returns also the rows of the latter that are this worker's."""
    judging = split[1][part.rank :: part.world]
    wanted = _dealt(split[0], part.streams(num_streams), num_streams)
    labelled = _cached(pool, positions, wanted, judging, cache, keeps=True)
    return labelled, np.flatnonzero(np.isin(labelled.number_N, judging))


def _dealt(numbers: list[int], streams: range, num_streams: int) -> dict[int, list[int]]:
    """The numbers that each of these streams draws."""
    is_shared = len(numbers) < FEW_LABELLED * num_streams
    return {stream: numbers if is_shared else numbers[stream::num_streams] for stream in streams}


def _cached(
    pool: Pool, positions: Sequence[Position], wanted: dict[int, list[int]], others: list[int], cache: Cache, *,
    keeps: bool,
) -> Labelled:  # fmt: skip
    """The wanted images, and the others, which are decoded too, and kept if that is asked for."""
    numbers = sorted({number for part in wanted.values() for number in part})
    kept = {*numbers, *(others if keeps else ())}
    seen = np.memmap(cache.file, dtype=cache.dtype, mode="w+", shape=(max(1, len(kept)), *cache.shape))
    numbers += others
    rows, not_decoded = dict[int, int](), set(numbers)
    for place, image in cache.read([positions[number] for number in numbers]):
        number = numbers[place]
        not_decoded.remove(number)
        if number in kept:
            seen[len(rows)] = image
            rows[number] = len(rows)
    by_stream = {stream: np.array([rows[n] for n in part if n in rows], np.int64) for stream, part in wanted.items()}
    # A round that begins without labels has none to decode.
    if positions and any(not len(part) for part in by_stream.values()):
        count = len({number for part in wanted.values() for number in part})
        raise InputError(f"none of {count} labelled images decodes; see image.max_pixels and the shards")
    folds = [pool.fold_of(*positions[number][:2]) for number in rows]
    images = Images(seen[: len(rows)], np.array(folds, np.int64))
    return Labelled(images, np.array(list(rows), np.int64), by_stream, sorted(not_decoded))


def decoded(pool: Pool, positions: Sequence[Position]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Number of the images at these positions and what the networks see, shard by shard, without those that do not
    decode."""
    by_shard: dict[str, list[int]] = defaultdict(list)
    for number, position in enumerate(positions):
        by_shard[position[0]].append(number)
    shards = pool.find(by_shard)

    def read(name: str) -> list[tuple[int, NDArray[Any]]]:
        contents = pool.sight.contents_at(shards[name], [Place(*positions[n][1:]) for n in by_shard[name]])
        images = ((n, pool.sight.decoded(content)) for n, content in zip(by_shard[name], contents, strict=True))
        return [(number, image) for number, image in images if image is not None]

    names = sorted(by_shard)
    with ThreadPoolExecutor(READ_THREADS) as threads:
        # In groups, to hold only a few shards' images at a time.
        for begin in range(0, len(names), READ_THREADS):
            for images in threads.map(read, names[begin : begin + READ_THREADS]):
                yield from images
