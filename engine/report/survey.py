"""One pass over a round's committed scores: the histogram of all items and a random sample of those not picked.

Memory is that of one scores file, whatever the size of the pool.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.tables.score_reader import read_scores

GROUPS = ("labelled", "picked", "not_picked", "out")
"""What an item is to the round: labelled before it, picked in it (by the query or the control arm), left over of what
can be picked, or picked in an earlier round and not labelled since. Every scored item is in exactly one group."""
NUM_BINS = 64
_FINEST = -10
_LARGEST_BIN = 2**52
"""Above it, edges next to each other would be the same float64."""

SAMPLE_COLUMNS = ["shard", "key", "offset", "size_bytes", "logit"]
Identity = tuple[str, str]
"""(shard, key)."""


class Members(NamedTuple):
    """The items of the groups that are small: shard and key of each."""

    labelled: set[Identity]
    picked: set[Identity]
    picked_before: set[Identity]


class Bins(NamedTuple):
    """A histogram: edges (n + 1,) ascending, and for each group its counts (n,), int64."""

    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]


class Histogram:
    """Counts of finite values by group, for values that come in pieces and whose range is not known before.

    Bins are half-open, aligned at zero, and of the least width among 2^-10, 2^-9, ... with which at most `num_bins`
    cover all values. They depend on the values alone: not on their order, and not on the pieces.
    """

    def __init__(self, num_bins: int) -> None:
        self._num_bins = num_bins
        self._exponent = _FINEST
        self._low, self._high = math.inf, -math.inf
        self._counts: dict[str, Counter[float]] = {group: Counter() for group in GROUPS}

    def add(self, group: str, values: NDArray[np.float32]) -> None:
        if not len(values):
            return
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        while not self._is_covered():
            self._exponent += 1
            self._counts = {name: _halved(counts) for name, counts in self._counts.items()}
        places = np.floor(np.ldexp(values.astype(np.float64), -self._exponent))
        bins, counts = np.unique(places, return_counts=True)
        self._counts[group].update(dict(zip(bins.tolist(), counts.tolist(), strict=True)))

    def bins(self) -> Bins:
        """Raises ValueError when nothing was added."""
        if self._low > self._high:
            raise ValueError("a histogram of no values")
        first, last = self._bin_of(self._low), self._bin_of(self._high)
        edges = np.ldexp(np.arange(first, last + 2, dtype=np.float64), self._exponent)
        places = [float(place) for place in range(first, last + 1)]
        counts = {name: np.array([found[p] for p in places], np.int64) for name, found in self._counts.items()}
        return Bins(edges, counts)

    def _is_covered(self) -> bool:
        first, last = self._bin_of(self._low), self._bin_of(self._high)
        return last - first < self._num_bins and max(-first, last) < _LARGEST_BIN

    def _bin_of(self, value: float) -> int:
        return math.floor(math.ldexp(value, -self._exponent))


def _halved(counts: Counter[float]) -> Counter[float]:
    halved: Counter[float] = Counter()
    for place, count in counts.items():
        halved[math.floor(place / 2)] += count
    return halved


class UniformSample:
    """A uniformly random choice of `size` rows, without replacement, of tables that come one after another.

    Every row draws a number and the lowest stay. The choice is a function of the generator's seed and the rows' order;
    how they are cut into tables does not matter.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size, self._rng = size, rng
        self._number = np.empty(0)
        self._rows: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        number = np.concatenate([self._number, self._rng.random(len(table))])
        kept = np.argsort(number, kind="stable")[: self._size]
        self._number = number[kept]
        self._rows = [pa.concat_tables([*self._rows, table]).take(pa.array(kept))]

    def rows(self) -> list[dict[str, Any]]:
        """The rows drawn so far: all of them while there are fewer than `size`. In no particular order."""
        return [row for table in self._rows for row in table.to_pylist()]


def survey(
    campaign: Campaign, entries: list[dict[str, Any]], members: Members, sample_size: int
) -> tuple[Bins, list[dict[str, Any]]]:
    """Logits of all scored items by group, and a uniformly random sample of those left over.

    Args:
        entries: the shards of the scores manifest.

    Returns:
        The histogram, and rows of SAMPLE_COLUMNS by ascending (logit, shard, key).

    Raises:
        InputError: a scores file is not the committed one.
    """
    histogram = Histogram(NUM_BINS)
    sample = UniformSample(sample_size, np.random.default_rng([campaign.config.train.seed, campaign.round]))
    labelled, picked, before = (_by_shard(items) for items in members)
    for entry in entries:
        table = read_scores(campaign.stage("scores"), entry, SAMPLE_COLUMNS)
        is_labelled, is_picked, was_picked = (
            _is_in(table, keys[entry["shard"]]) for keys in (labelled, picked, before)
        )
        is_left = ~(is_labelled | is_picked | was_picked)
        masks = (is_labelled, is_picked, is_left, was_picked & ~is_labelled)
        logit = table["logit"].to_numpy()
        for group, mask in zip(GROUPS, masks, strict=True):
            histogram.add(group, logit[mask])
        sample.add(table.filter(pa.array(is_left)))
    return histogram.bins(), sorted(sample.rows(), key=lambda row: (row["logit"], row["shard"], row["key"]))


def _by_shard(items: Iterable[Identity]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = defaultdict(list)
    for shard, key in items:
        keys[shard].append(key)
    return keys


def _is_in(table: pa.Table, keys: list[str]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(table["key"], value_set=pa.array(keys, pa.string())).to_numpy()
    return found
