"""The two streams that training reads: endless, shuffled by a seed, and different on every rank.

The labelled pool is decoded once into a memory-mapped file and drawn from at random. The unlabelled pool is streamed
from its shards, in another order each epoch.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import webdataset as wds
from numpy.typing import NDArray

from engine.config import ImageConfig
from engine.errors import InputError
from engine.identity import fold_of
from engine.images import DecodeError, decode
from engine.pool import Shard, read_ranges
from engine.shards import read_shard

SHUFFLE_ITEMS = 2000
SHUFFLE_BYTES = 128 << 20
READ_THREADS = 8


class Part(NamedTuple):
    """Which worker this is: rank 0 to world - 1."""

    rank: int
    world: int


class Images(NamedTuple):
    """Decoded items of one pool: pixels (N, H, W, C) uint8, fold (N,) int64."""

    pixels_NHWC: NDArray[np.uint8]
    fold_N: NDArray[np.int64]


class Pool(NamedTuple):
    """What a stream needs to know of the pool."""

    shards: list[Shard]
    image: ImageConfig
    num_folds: int


def cache_labelled(pool: Pool, positions: list[tuple[str, str, int, int]], part: Part, file: Path) -> Images:
    """This rank's share of the labelled images, decoded into `file`. `positions`: shard, key, offset, size in bytes.

    With fewer items than workers every worker takes all of them. Images that do not decode are left out.

    Raises:
        InputError: a shard changed, or no labelled image decodes.
    """
    mine = positions[part.rank :: part.world] if len(positions) >= part.world else positions
    side, channels = pool.image.size, pool.image.channels
    pixels = np.memmap(file, dtype=np.uint8, mode="w+", shape=(len(mine), side, side, channels))
    by_shard: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for shard, key, offset, size in mine:
        by_shard[shard].append((key, offset, size))
    shards = {shard.shard: shard for shard in pool.shards}

    def read(name: str) -> list[tuple[int, NDArray[np.uint8]]]:
        wanted = by_shard[name]
        decoded = []
        for (key, _, _), content in zip(wanted, read_ranges(shards[name], [w[1:] for w in wanted]), strict=True):
            try:
                image = decode(content, side, channels, pool.image.max_pixels)
            except DecodeError:
                continue
            decoded.append((fold_of(name, key, pool.num_folds), image))
        return decoded

    folds: list[int] = []
    with ThreadPoolExecutor(READ_THREADS) as threads:
        for decoded in threads.map(read, sorted(by_shard)):
            for fold, image in decoded:
                pixels[len(folds)] = image
                folds.append(fold)
    if not folds:
        raise InputError(f"none of the {len(mine)} labelled images decodes; see image.max_pixels and the shards")
    return Images(pixels[: len(folds)], np.array(folds, dtype=np.int64))


def labelled_batches(cached: Images, size: int, seed: tuple[int, ...]) -> Iterator[Images]:
    """Endless batches: every item once a pass, each pass in another order; passes run on across batches."""
    rng = np.random.default_rng(seed)
    queue = np.empty(0, dtype=np.intp)
    while True:
        while len(queue) < size:
            queue = np.concatenate([queue, rng.permutation(len(cached.fold_N))])
        batch, queue = queue[:size], queue[size:]
        yield Images(cached.pixels_NHWC[batch], cached.fold_N[batch])


def unlabelled_batches(
    pool: Pool, labelled: set[tuple[str, str]], part: Part, size: int, seed: tuple[int, ...]
) -> Iterator[Images]:
    """Endless batches over the pool's unlabelled items. Items that do not decode are left to scoring to quarantine.

    Shards are dealt to ranks; with fewer shards than ranks, every rank reads all and keeps its share of the items.

    Raises:
        InputError: a shard cannot be read, or a whole pass finds nothing to train on.
    """
    images = _endless(pool, labelled, part, seed)
    while True:
        batch = list(islice(images, size))
        yield Images(np.stack([pixels for pixels, _ in batch]), np.array([fold for _, fold in batch], dtype=np.int64))


def _endless(
    pool: Pool, labelled: set[tuple[str, str]], part: Part, seed: tuple[int, ...]
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    shard_order = np.random.default_rng(seed)
    item_order = random.Random(f"{seed}/{part.rank}")
    capacity = max(1, min(SHUFFLE_ITEMS, SHUFFLE_BYTES // (pool.image.size**2 * pool.image.channels)))
    while True:
        order = shard_order.permutation(len(pool.shards))
        num_yielded = 0
        # The buffer is emptied at the end of a pass, so that a pass holds every item once.
        shuffle = wds.shuffle(capacity, initial=capacity, rng=item_order)
        for image in shuffle(_one_pass(pool, labelled, part, order)):
            num_yielded += 1
            yield image
        if not num_yielded:
            raise InputError(f"the pool has no unlabelled image that decodes (worker {part.rank} of {part.world})")


def _one_pass(
    pool: Pool, labelled: set[tuple[str, str]], part: Part, order: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    by_shard = len(order) >= part.world
    for index in order[part.rank :: part.world] if by_shard else order:
        shard = pool.shards[index]
        for number, item in enumerate(read_shard(shard)):
            if item.fault or (shard.shard, item.key) in labelled or not (by_shard or number % part.world == part.rank):
                continue
            try:
                pixels = decode(item.data, pool.image.size, pool.image.channels, pool.image.max_pixels)
            except DecodeError:
                continue
            yield pixels, fold_of(shard.shard, item.key, pool.num_folds)
