"""The batches of VAAL's training, and the unlabelled images that judge it.

A batch is defined over all streams and cut by worker and micro-batch. So the images, folds and noise of an update
depend only on the configuration and the update's number.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice, pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.pool.identity import ALONE, draw_of, group_number_of
from engine.pool.samples import Item
from engine.pool.shard import Shard
from engine.training.deal import Deal
from engine.training.labelled import Decoded, Images, Labelled, Part
from engine.training.streams import READ_THREADS, Pool, UnlabelledStream, unlabelled, unlabelled_runs

T = TypeVar("T")
SAMPLED_RUNS = 256
"""Least number of runs, where there are so many, from which the unlabelled images come that judge a large pool's
networks."""
JUDGING_PASS = 1 << 31
"""The pass over a large pool that judges: training never comes so far."""
PREFETCH = 4
"""Batches that are prepared ahead."""
MOST_BAD = 10_000
"""Training ends after so many consecutive images that do not decode."""
Augment = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]
"""Pixels (N, H, W, C) and a source of randomness to other pixels of the same shape."""


class MicroBatch(NamedTuple):
    """One worker's micro-batch: see `vaal.step.Batch`."""

    labelled: Images
    unlabelled: Images
    noise_NZ: NDArray[np.float32]
    weight: float


def to_images(pool: Pool, found: list[Decoded]) -> Images:
    """Decoded images of these shards and keys, with their folds and groups."""
    seen_N = np.array([image for _, _, image in found], pool.sight.dtype).reshape(-1, *pool.sight.shape)
    fold_N = np.array([pool.fold_of(shard, key) for shard, key, _ in found], np.int64)
    if pool.groups == ALONE:
        return Images(seen_N, fold_N)
    numbers = [group_number_of(shard, key, pool.groups) for shard, key, _ in found]
    return Images(seen_N, fold_N, np.array(numbers, np.uint64).view(np.int64))


def unlabelled_sample(pool: Pool, deal: Deal, most: int) -> Images:
    """About `most` unlabelled images to judge the networks on: see `unlabelled_images`."""
    return to_images(pool, list(unlabelled_images(pool, deal, most)))


def unlabelled_images(pool: Pool, deal: Deal, most: int) -> Iterator[Decoded]:
    """About `most` unlabelled images, decoded: held-out ones, if any are held out.

    For a counted pool this is a uniform sample. For a larger one it is a few of each of many runs over all its shards.
    """
    num_found = 0
    with closing(_judging(pool, deal, most)) as parts:
        for shard, items in parts:
            for item in items:
                image = pool.sight.decoded(item.data)
                if image is not None:
                    num_found += 1
                    yield shard.shard, item.key, image
            if deal.counts is None and num_found >= most:
                break


def _judging(pool: Pool, deal: Deal, most: int) -> Generator[tuple[Shard, Iterable[Item]]]:
    is_held_out = pool.held_out > 0
    if deal.counts is None:
        runs = list(islice(deal._replace(num_streams=1).runs(JUDGING_PASS, 0), most))
        per_run = math.ceil(most / min(len(runs), SAMPLED_RUNS))
        with closing(unlabelled_runs(pool, deal, runs, {}, held_out=is_held_out)) as parts:
            yield from ((pool.shards[index], islice(items, per_run)) for index, items in parts)
        return
    # The counts are of the items that train; the judges are the others, where any are held out.
    odds = pool.held_out / (1 - pool.held_out) if is_held_out else 1.0
    share = most / max(1.0, odds * int(deal.counts.sum()))
    for shard in pool.shards:
        items = unlabelled(pool, shard, {}, held_out=is_held_out)
        yield shard, (item for item in items if draw_of(shard.shard, item.key, deal.seed) < share * 2**64)


class Batches:
    """One worker's endless batches, each with the state from which the next ones follow.

    `sizes`: images of each pool in a batch, over all workers; micro-batches; latent units. `state` is that of the last
    batch that was used, from any number of workers. `augment` changes the pixels that are drawn of a stream.
    """

    def __init__(
        self, pool: Pool, labelled: Labelled, deal: Deal, part: Part, sizes: tuple[int, int, int],
        state: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.augment: Augment | None = None
        self._pool, self._labelled, self._deal, self._part = pool, labelled, deal, part
        self._size, self._num_micro, self._num_latents = sizes
        self._number = state["batch"] if state else 0
        states = state["streams"] if state else {}
        self._streams = {s: UnlabelledStream(pool, deal, s, states.get(str(s))) for s in part.streams(deal.num_streams)}
        self._threads = ThreadPoolExecutor(READ_THREADS)

    @property
    def left_out(self) -> dict[str, str]:
        """The damaged shards that were met, with their faults."""
        return {shard: why for stream in self._streams.values() for shard, why in stream.left_out.items()}

    def __iter__(self) -> Iterator[tuple[list[MicroBatch], dict[str, Any]]]:
        while True:
            noise, pools = [], list[list[Images]]()
            for stream, source in self._streams.items():
                # Place g in the sequence of all batches belongs to stream g mod num_streams.
                ends = (number * self._size - stream for number in (self._number, self._number + 1))
                begin, end = (-(-end // self._deal.num_streams) for end in ends)
                row_N = self._labelled.draw(stream, (self._deal.seed, 2), begin, end - begin)
                drawn = [self._labelled.at(row_N), to_images(self._pool, self._decode(source, end - begin))]
                if self.augment is not None:
                    rng = np.random.default_rng((self._deal.seed, 7, self._number, stream))
                    drawn = [images._replace(seen_N=self.augment(images.seen_N, rng)) for images in drawn]
                pools.append(drawn)
                rng = np.random.default_rng((self._deal.seed, 3, self._number, stream))
                noise.append(rng.standard_normal((2, end - begin, self._num_latents), np.float32))
            self._number += 1
            labelled, unlabelled = (
                Images(*(np.concatenate(values) for values in zip(*(part[:2] for part in parts), strict=True)))
                for parts in zip(*pools, strict=True)
            )
            state = {"batch": self._number, "streams": {str(s): u.state() for s, u in self._streams.items()}}
            yield self._cut(labelled, unlabelled, np.concatenate(noise, axis=1)), state

    def _decode(self, stream: UnlabelledStream, count: int) -> list[Decoded]:
        """The stream's next images that decode. Scoring quarantines the others."""
        found: list[Decoded] = []
        num_read = 0
        while len(found) < count:
            items = list(islice(stream, count - len(found)))
            num_read += len(items)
            images = self._threads.map(lambda found: self._pool.sight.decoded(found[1].data), items)
            shards, pairs = self._pool.shards, zip(items, images, strict=True)
            found += [(shards.name_of(n), item.key, image) for (n, item), image in pairs if image is not None]
            if num_read > MOST_BAD and not found:
                raise InputError(f"no unlabelled image decodes ({num_read:,} were read); see image.max_pixels")
        return found

    def _cut(self, labelled: Images, unlabelled: Images, noise: NDArray[np.float32]) -> list[MicroBatch]:
        count = len(labelled.fold_N)
        cuts = [count * micro // self._num_micro for micro in range(self._num_micro + 1)]
        return [
            MicroBatch(
                labelled.at(slice(begin, end)),
                unlabelled.at(slice(begin, end)),
                np.concatenate(noise[:, begin:end]),
                (end - begin) * self._num_micro * self._part.world / self._size,
            )
            for begin, end in pairwise(cuts)
        ]


def prefetched(source: Iterable[T]) -> Generator[T]:
    """The values of an endless iterable, computed a little ahead in a thread. An error is raised in its place."""
    thread, values = ThreadPoolExecutor(1), iter(source)
    try:
        ahead = deque(thread.submit(next, values) for _ in range(PREFETCH))
        while True:
            ahead.append(thread.submit(next, values))
            yield ahead.popleft().result()
    finally:
        # The thread stops after its current value.
        thread.shutdown(wait=False, cancel_futures=True)
