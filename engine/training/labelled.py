"""The labelled images, decoded once for all passes as far as the scratch disk has room, and the order in which streams
draw them."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.campaign.packed_positions import Position
from engine.errors import InputError
from engine.pool.shard import Place
from engine.training.streams import READ_THREADS, Pool

FEW_LABELLED = 32
"""With fewer labelled items per stream, every stream draws from all of them: the parts would be too unequal."""
SHARE_OF_SCRATCH = 0.25
"""Of what is free on the scratch disk, the part that the caches of a machine's workers take: one of VAAL's images, then
one of the task learner's."""
MOST_AT_ONCE = 512
"""Neighbouring images of a shard that are read together."""
Numbers = Sequence[int] | NDArray[np.int64]
Decoded = tuple[str, str, NDArray[Any]]
"""shard, key, and what the networks see."""


class Part(NamedTuple):
    """A worker's rank, 0 to world - 1. It reads streams rank, rank + world, ..."""

    rank: int
    world: int

    def streams(self, num_streams: int) -> range:
        return range(self.rank, num_streams, self.world)


class Cache(NamedTuple):
    """Where labelled items are kept, decoded: a file of at most so many bytes with arrays of this shape and dtype.
    `read` gives those at some positions with the numbers of these, in this order, without the items of which that is
    impossible."""

    file: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Iterable[Position]], Iterator[tuple[int, NDArray[Any]]]]
    most_bytes: int = sys.maxsize

    @property
    def item_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def room(self, most: int) -> NDArray[Any]:
        """An array in the file for `most` items, or as many as fit."""
        most = min(most, self.most_bytes // self.item_bytes)
        if not most:
            return np.empty((0, *self.shape), self.dtype)
        try:
            with self.file.open("wb") as file:
                # Taken at once: where a disk becomes full under a mapped file, the process dies of a signal.
                os.posix_fallocate(file.fileno(), 0, most * self.item_bytes)
        except OSError:
            # A quota, say: images that are not kept are read again.
            self.file.unlink(missing_ok=True)
            return self.room(0)
        return np.memmap(self.file, dtype=self.dtype, mode="r+", shape=(most, *self.shape))


def room_on(folder: Path, num_workers: int) -> int:
    """The bytes that a cache may take on the disk of a folder, where so many workers share a machine."""
    return int(shutil.disk_usage(folder).free * SHARE_OF_SCRATCH) // num_workers


def as_seen(pool: Pool, file: Path, most_bytes: int = sys.maxsize) -> Cache:
    """A cache of what the networks see."""
    return Cache(file, pool.sight.shape, pool.sight.dtype, partial(decoded, pool), most_bytes)


class Seen:
    """What the networks see of N items: the first of them in a file, the others read again whenever they are asked for.
    What is found is the same either way."""

    def __init__(self, cache: Cache, positions: Sequence[Position], number_N: NDArray[np.int64], held: NDArray[Any]):
        """`number_N` are numbers of the positions; `held` are the first items."""
        self.cache, self._positions, self._number_N, self._held = cache, positions, number_N, held
        self.shape = len(number_N), *cache.shape
        self.num_held = len(held)

    def __getitem__(self, row_B: NDArray[np.int64]) -> NDArray[Any]:
        """The arrays (B, ...) at these rows. Raises InputError if a shard or an image in it changed."""
        found = np.empty((len(row_B), *self.cache.shape), self.cache.dtype)
        is_held_B = row_B < self.num_held
        found[is_held_B] = self._held[row_B[is_held_B]]
        missing = np.flatnonzero(~is_held_B)
        # Images of one shard are read together.
        missing = missing[np.argsort(row_B[missing], kind="stable")]
        wanted = [self._positions[number] for number in self._number_N[row_B[missing]].tolist()]
        num_read = 0
        for place, image in self.cache.read(wanted):
            found[missing[place]] = image
            num_read += 1
        if num_read < len(wanted):
            why = f"{len(wanted) - num_read} of {len(wanted)} labelled images could be used when training began"
            raise InputError(f"{wanted[0][0]}: {why}, and cannot be used now; train again")
        return found


def in_words(seen: Seen) -> str:
    """The line that reports items that are read again; "" where all are kept."""
    if seen.num_held == seen.shape[0]:
        return ""
    kept = f"{seen.num_held:,} of a worker's {seen.shape[0]:,} labelled images are kept decoded"
    why = "the others are read from their shards whenever they are drawn, which is slower: set TMPDIR to a larger disk"
    return f"{kept} in {seen.cache.file.parent}; {why}"


class Images(NamedTuple):
    """Items of one pool: what the networks see, pixels (N, H, W, C) uint8 or embeddings (N, D) float32; fold (N,)
    int64; for judging also the number of each item's group (N,) int64, where the pool has groups."""

    seen_N: NDArray[Any]
    fold_N: NDArray[np.int64]
    group_N: NDArray[np.int64] | None = None

    def at(self, rows: slice) -> "Images":
        return Images(self.seen_N[rows], self.fold_N[rows])


class Labelled(NamedTuple):
    """The decoded labelled images of some streams, N of them: what is seen of each; its fold (N,); its number in the
    list of labels (N,), ascending; the rows of each stream; and the numbers of those that do not decode, held out or
    not."""

    seen: Seen
    fold_N: NDArray[np.int64]
    number_N: NDArray[np.int64]
    rows: dict[int, NDArray[np.int64]]
    not_decoded: list[int]

    def at(self, row_B: NDArray[np.int64]) -> Images:
        return Images(self.seen[row_B], self.fold_N[row_B])

    def draw(self, stream: int, seed: tuple[int, ...], begin: int, count: int) -> NDArray[np.int64]:
        """Rows `begin` to `begin + count` of a stream's endless passes, each pass in a new order."""
        rows = self.rows[stream]
        drawn: list[NDArray[np.int64]] = []
        for number in range(begin // len(rows), (begin + count - 1) // len(rows) + 1):
            order = np.random.default_rng((*seed, stream, number)).permutation(rows)
            drawn.append(order[max(begin - number * len(rows), 0) : begin + count - number * len(rows)])
        return np.concatenate(drawn)


def cache_labelled(
    pool: Pool, positions: Sequence[Position], streams: range, num_streams: int, cache: Cache
) -> Labelled:
    """The labelled images of these streams that train, decoded, without those that do not decode.

    The streams' share of those that are held out is decoded too: what does not is known before anything trains.

    Raises InputError if a shard or an image in it changed, or no image of a stream decodes.
    """
    held_out = (pool.is_held_out(*position[:2]) for position in positions)
    is_held_out_N = np.fromiter(held_out, np.bool_, len(positions))
    training, held_out_numbers = np.flatnonzero(~is_held_out_N), np.flatnonzero(is_held_out_N)
    tried = np.concatenate([held_out_numbers[:0], *(held_out_numbers[stream::num_streams] for stream in streams)])
    return _cached(pool, positions, _dealt(training, streams, num_streams), tried, cache, keeps=False)


def cache_for_task(
    pool: Pool, positions: Sequence[Position], split: tuple[Numbers, Numbers], part: Part, num_streams: int,
    cache: Cache,
) -> tuple[Labelled, NDArray[np.int64]]:  # fmt: skip
    """As `cache_labelled`, for the task learner: `split` are the numbers of the images that it trains on, and of those
    by which it is judged. Returns also the rows of the latter that are this worker's."""
    training, judging = (np.asarray(numbers, np.int64) for numbers in split)
    own = judging[part.rank :: part.world]
    wanted = _dealt(training, part.streams(num_streams), num_streams)
    labelled = _cached(pool, positions, wanted, own, cache, keeps=True)
    return labelled, np.flatnonzero(np.isin(labelled.number_N, own))


def _dealt(numbers: NDArray[np.int64], streams: range, num_streams: int) -> dict[int, NDArray[np.int64]]:
    """The numbers that each of these streams draws."""
    is_shared = len(numbers) < FEW_LABELLED * num_streams
    return {stream: numbers if is_shared else numbers[stream::num_streams] for stream in streams}


def _cached(
    pool: Pool, positions: Sequence[Position], wanted: dict[int, NDArray[np.int64]], others: NDArray[np.int64],
    cache: Cache, *, keeps: bool,
) -> Labelled:  # fmt: skip
    """The wanted images, and the others, which are decoded too, and kept if that is asked for."""
    numbers = np.unique(np.concatenate([others[:0], *wanted.values()]))
    tried = np.union1d(numbers, others)
    is_kept_N = np.ones(len(tried), np.bool_) if keeps else np.isin(tried, numbers)
    held, num_held, is_found_N = cache.room(int(is_kept_N.sum())), 0, np.zeros(len(tried), np.bool_)
    for place, image in cache.read(positions[number] for number in tried.tolist()):
        is_found_N[place] = True
        if is_kept_N[place] and num_held < len(held):
            held[num_held] = image
            num_held += 1
    number_N = tried[is_kept_N & is_found_N]
    by_stream = {stream: np.flatnonzero(np.isin(number_N, part)) for stream, part in wanted.items()}
    # A round that begins without labels has none to decode.
    if len(positions) and any(not len(part) for part in by_stream.values()):
        raise InputError(f"none of {len(numbers)} labelled images decodes; see image.max_pixels and the shards")
    folds = (pool.fold_of(*positions[number][:2]) for number in number_N.tolist())
    fold_N = np.fromiter(folds, np.int64, len(number_N))
    seen = Seen(cache, positions, number_N, held[:num_held])
    return Labelled(seen, fold_N, number_N, by_stream, tried[~is_found_N].tolist())


def decoded(pool: Pool, positions: Iterable[Position]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Number of the images at these positions and what the networks see, in this order, without those that do not
    decode. Neighbours of one shard are read together."""

    def read(part: tuple[str, list[tuple[int, Place]]]) -> list[tuple[int, NDArray[Any]]]:
        name, places = part
        contents = pool.sight.contents_at(pool.shard(name), [place for _, place in places])
        images = ((n, pool.sight.decoded(content)) for (n, _), content in zip(places, contents, strict=True))
        return [(number, image) for number, image in images if image is not None]

    parts = by_shard(positions)
    with ThreadPoolExecutor(READ_THREADS) as threads:
        # In groups, to hold only a few parts' images at a time.
        while group := list(islice(parts, READ_THREADS)):
            for images in threads.map(read, group):
                yield from images


def by_shard(positions: Iterable[Position]) -> Iterator[tuple[str, list[tuple[int, Place]]]]:
    """Neighbouring positions of one shard, not too many, with their numbers."""
    for name, group in groupby(enumerate(positions), lambda numbered: numbered[1][0]):
        while part := [(number, Place(*position[1:])) for number, position in islice(group, MOST_AT_ONCE)]:
            yield name, part
