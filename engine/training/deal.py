"""Which part of the pool training's streams read, in which order.

A pool that is read whole is dealt in items, one that is sampled in runs of neighbouring items.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.pool.tar import BLOCK

FEWEST_RUN_ITEMS, MOST_RUN_ITEMS = 16, 64
SMALLEST_RUN_BYTES, LARGEST_RUN_BYTES = 64 << 10, 8 << 20
"""A run has at least four items, whatever their size."""


class Slice(NamedTuple):
    """Trainable items `first` up to `last` of a shard."""

    shard: int
    first: int
    last: int


class Run(NamedTuple):
    """Bytes `begin` to `end` of a shard: see `engine.pool.runs.read_run`."""

    shard: int
    begin: int
    end: int


class Deal(NamedTuple):
    """Which stream reads which items: a function of the seed, the same on every machine. `sizes` are of shards, bytes.

    With `counts`, the trainable items of every shard, each stream reads an equal part of the pool, to one item, so that
    every item is read once per pass. (If there are fewer items than streams, each stream reads all.)

    Without counts, runs of about `run_bytes` are dealt, none twice per pass: for a pool that is too large to count and
    of which training sees a sample. A shard's runs are spread evenly over the pass, in random order: so the beginning
    of a pass has runs of all shards, or of as many as it is long. With `run_bytes` 0 a run is a whole shard.
    """

    sizes: NDArray[np.int64]
    num_streams: int
    seed: int
    counts: NDArray[np.int64] | None
    run_bytes: int = SMALLEST_RUN_BYTES

    def slices(self, epoch: int, stream: int) -> list[Slice]:
        """The parts of a counted pool that a stream reads in a pass, in order."""
        assert self.counts is not None
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.sizes))
        ends = np.cumsum(self.counts[order])
        total = int(ends[-1])
        begin, end = (total * part // self.num_streams for part in (stream, stream + 1))
        if total < self.num_streams:
            begin, end = 0, total
        starts = ends - self.counts[order]
        first, last = np.maximum(starts, begin) - starts, np.minimum(ends, end) - starts
        return [Slice(int(order[n]), int(first[n]), int(last[n])) for n in np.flatnonzero(first < last)]

    def runs(self, epoch: int, stream: int) -> Iterator[Run]:
        """The runs of an uncounted pool that a stream reads in a pass, in order."""
        count_S = np.maximum(1, self.sizes // (self.run_bytes or int(self.sizes.max()) + 1))
        turns = int(count_S.max())
        # A shard with c runs is due in c of the turns, at equal distances. Seeds differ in what is not zero.
        phase_S = np.random.default_rng((self.seed, epoch, 1)).random(len(count_S))
        step = self.num_streams if int(count_S.sum()) >= self.num_streams else 1
        ahead = stream % step
        for turn in range(turns):
            place_S, next_S = (np.floor(count_S * (at / turns) + phase_S).astype(np.int64) for at in (turn, turn + 1))
            due = np.random.default_rng((self.seed, epoch, 2, turn)).permutation(np.flatnonzero(place_S < next_S))
            for shard in due[ahead::step]:
                yield self._run(epoch, int(shard), int(place_S[shard]), int(count_S[shard]))
            ahead = (ahead - len(due)) % step

    def _run(self, epoch: int, shard: int, place: int, count: int) -> Run:
        number = int(np.random.default_rng((self.seed, epoch, 3, shard)).permutation(count)[place % count])
        cuts = (int(self.sizes[shard]) * part // count // BLOCK * BLOCK for part in (number, number + 1))
        return Run(shard, next(cuts), int(self.sizes[shard]) if number + 1 == count else next(cuts))


def run_bytes(sizes: NDArray[np.int64], num_items: int, num_sampled: int) -> int:
    """The length of runs in bytes, for a pool of about `num_items` of which training sees `num_sampled`.

    Shorter runs see more shards, longer ones read less beside what they give.
    """
    items = min(max(num_sampled // len(sizes), FEWEST_RUN_ITEMS), MOST_RUN_ITEMS)
    item_bytes = int(sizes.sum()) // max(1, num_items)
    return max(SMALLEST_RUN_BYTES, 4 * item_bytes, min(items * item_bytes, LARGEST_RUN_BYTES))
