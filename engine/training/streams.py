"""How training reads the unlabelled pool: in streams that do not depend on workers or interruptions.

A worker reads one or more streams, so any number of workers sees the same batches, and a run can resume with another
number. A stream's state is small: its position, and the positions of the items in its shuffle buffer.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.pool.identity import ALONE, Groups, fold_of, held_out_of
from engine.pool.items import read_shard
from engine.pool.runs import read_run
from engine.pool.samples import Item
from engine.pool.shard import DamagedShardError, Place, Shard
from engine.pool.shards import NO_SHARDS, Shards
from engine.pool.sight import Sight
from engine.tables.by_shard import ByShard
from engine.training.deal import Deal, Run

SHUFFLE_ITEMS = 2000
SHUFFLE_BYTES = 128 << 20
"""Bounds on the buffers of all streams together. A worker holds its share."""
READ_THREADS = 8
RUNS_AHEAD = 2
"""Runs that a stream reads ahead: opening a file of an object store takes tens of milliseconds."""
MOST_EMPTY_PASSES = 20
"""All shards of a stream may be labelled. After this many such passes in a row, training ends with an error."""


class Pool(NamedTuple):
    """The pool for training.

    `labelled` are the labelled items, and `gone` those that were forgotten: nothing trains on these as unlabelled.
    `held_out` is the share of items that nothing trains on at all, and `round` is that in which folds and held-out
    items are drawn, by `groups`. `others` are shards that are not in the round's pool: only their labelled images are
    read.
    """

    shards: Shards
    sight: Sight
    num_folds: int
    labelled: ByShard
    held_out: float
    round: int = 0
    groups: Groups = ALONE
    others: Shards = NO_SHARDS
    gone: frozenset[tuple[str, str]] = frozenset()

    def shard(self, name: str) -> Shard:
        """The shard of this name, which labelled images are in; no more is looked at of a million of them."""
        try:
            return self.shards.named(name)
        except KeyError:
            return self.others.named(name)

    def is_held_out(self, shard: str, key: str) -> bool:
        return held_out_of(shard, key, self.held_out, self.round, self.groups)

    def fold_of(self, shard: str, key: str) -> int:
        return fold_of(shard, key, self.num_folds, self.round, self.groups)


Found = tuple[int, Item]
"""An item of the pool, and the index of its shard in the pool's list."""


def count_trainable(pool: Pool, left_out: dict[str, str] | None = None) -> NDArray[np.int64]:
    """The number of trainable items of every shard, (shards,) int64. Reads the whole pool, decodes nothing.

    A damaged shard has none, and is entered in `left_out` with its fault.
    """

    def count(shard: Shard) -> int:
        faults: dict[str, str] = {}
        number = sum(1 for _ in unlabelled(pool, shard, faults, held_out=False))
        if left_out is not None:
            left_out.update(faults)
        return 0 if faults else number

    with ThreadPoolExecutor(READ_THREADS) as threads:
        return np.fromiter(threads.map(count, pool.shards), np.int64, len(pool.shards))


def unlabelled(pool: Pool, shard: Shard, left_out: dict[str, str], *, held_out: bool) -> Iterator[Item]:
    """The unlabelled items without a fault of a shard: those that are held out, or those that are not.

    A damaged shard ends where the damage is, and is entered in `left_out` with its fault.
    """
    try:
        sight = pool.sight
        yield from _unlabelled(pool, shard, read_shard(shard, sight.image, sight.companion), held_out)
    except DamagedShardError as error:
        left_out[shard.shard] = str(error)


def unlabelled_runs(
    pool: Pool, deal: Deal, runs: Iterable[Run], left_out: dict[str, str], *, held_out: bool
) -> Generator[tuple[int, Iterable[Item]]]:
    """As `unlabelled`, for runs: the index of each run's shard, and its items.

    Runs are read a little ahead by threads, whole shards item by item. A run with damage in it has no items.
    """
    if not deal.run_bytes:
        yield from ((run.shard, unlabelled(pool, pool.shards[run.shard], left_out, held_out=held_out)) for run in runs)
        return

    def read(run: Run) -> tuple[int, list[Item]]:
        shard, sight = pool.shards[run.shard], pool.sight
        try:
            items = read_run(shard, sight.image, run.begin, run.end, sight.companion)
            return run.shard, list(_unlabelled(pool, shard, items, held_out))
        except DamagedShardError as error:
            left_out[shard.shard] = str(error)
            return run.shard, []

    pending: deque[Future[tuple[int, list[Item]]]] = deque()
    with ThreadPoolExecutor(RUNS_AHEAD) as threads:
        try:
            for run in runs:
                pending.append(threads.submit(read, run))
                if len(pending) > RUNS_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _unlabelled(pool: Pool, shard: Shard, items: Iterable[Item], held_out: bool) -> Iterator[Item]:
    labelled = pool.labelled.keys_in(shard.shard)

    def is_wanted(item: Item) -> bool:
        place = shard.shard, item.key
        is_free = item.key not in labelled and place not in pool.gone
        return not item.fault and is_free and pool.is_held_out(*place) == held_out

    yield from pool.sight.contents(shard, filter(is_wanted, items))


class UnlabelledStream:
    """Endless passes over one stream's part of the pool, shuffled in a buffer that is emptied at the end of a pass.

    `left_out` holds the damaged shards that were met, with their faults. Iterating raises InputError if a shard cannot
    be read, or if passes find nothing to train on.
    """

    def __init__(self, pool: Pool, deal: Deal, number: int, state: dict[str, Any] | None = None) -> None:
        self._pool, self._deal, self._number = pool, deal, number
        self._most_items = max(1, SHUFFLE_ITEMS // deal.num_streams)
        self._most_bytes = SHUFFLE_BYTES // deal.num_streams
        self._rng = np.random.default_rng((deal.seed, number))
        self._epoch = self._slice = self._read = 0
        self._buffer: list[Found] = []
        self.left_out: dict[str, str] = {}
        if state:
            self._epoch, self._slice, self._read = state["position"]
            self._rng.bit_generator.state = state["rng"]
            self._buffer = _read_again(pool, [tuple(item) for item in state["buffer"]])
        self._bytes = sum(len(item.data) for _, item in self._buffer)
        self._items = self._passes()

    def __iter__(self) -> Iterator[Found]:
        return self._items

    def state(self) -> dict[str, Any]:
        """The stream's state, from which it can continue, as plain values. Cheap enough for every batch."""
        return {
            "position": (self._epoch, self._slice, self._read),
            "rng": self._rng.bit_generator.state,
            "buffer": [(shard, item.key, item.offset, item.size_bytes) for shard, item in self._buffer],
        }

    def _passes(self) -> Iterator[Found]:
        num_empty = 0
        while True:
            num_yielded = len(self._buffer)
            for item in self._one_pass():
                self._buffer.append(item)
                num_yielded += 1
                self._bytes += len(item[1].data)
                while len(self._buffer) >= self._most_items or self._bytes > self._most_bytes:
                    yield self._draw()
            while self._buffer:
                yield self._draw()
            num_empty = 0 if num_yielded else num_empty + 1
            if num_empty == MOST_EMPTY_PASSES:
                raise InputError(f"the pool has no unlabelled image to train on (stream {self._number})")
            self._epoch, self._slice, self._read = self._epoch + 1, 0, 0

    def _draw(self) -> Found:
        place = int(self._rng.integers(len(self._buffer)))
        self._buffer[place], self._buffer[-1] = self._buffer[-1], self._buffer[place]
        found = self._buffer.pop()
        self._bytes -= len(found[1].data)
        return found

    def _one_pass(self) -> Iterator[Found]:
        with closing(self._counted() if self._deal.counts is not None else self._uncounted()) as parts:
            for shard, items in parts:
                for item in items:
                    self._read += 1
                    yield shard, item
                self._slice, self._read = self._slice + 1, 0

    def _counted(self) -> Generator[tuple[int, Iterable[Item]]]:
        for shard, first, last in self._deal.slices(self._epoch, self._number)[self._slice :]:
            items = unlabelled(self._pool, self._pool.shards[shard], self.left_out, held_out=False)
            yield shard, islice(items, first + self._read, last)

    def _uncounted(self) -> Generator[tuple[int, Iterable[Item]]]:
        runs = islice(self._deal.runs(self._epoch, self._number), self._slice, None)
        with closing(unlabelled_runs(self._pool, self._deal, runs, self.left_out, held_out=False)) as found:
            for shard, items in found:
                yield shard, islice(items, self._read, None)


def _read_again(pool: Pool, wanted: list[tuple[Any, ...]]) -> list[Found]:
    """The items of a buffer, read by byte range, in the order given.

    Their hashes are not kept, and do not matter: these images have no label that other bytes could come under. Where a
    shard is known to have other bytes, a run does not resume.
    """
    found: dict[int, bytes] = {}
    for shard in {item[0] for item in wanted}:
        numbers = [number for number, item in enumerate(wanted) if item[0] == shard]
        places = [Place._make((*wanted[number][1:], None)) for number in numbers]
        found.update(zip(numbers, pool.sight.contents_at(pool.shards[shard], places), strict=True))
    return [(shard, Item(key, offset, size, found[n], "")) for n, (shard, key, offset, size) in enumerate(wanted)]
