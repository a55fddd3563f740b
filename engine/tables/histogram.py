"""Histograms of scores, counted in pieces on many machines and merged exactly."""

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

GROUPS = ("labelled", "eligible", "out")
"""What an item is to the round: labelled before it, able to be picked in it (its picks included), or picked in an
earlier round and without a label yet. Every scored item is in exactly one group."""
HISTOGRAM_SCHEMA = pa.schema(
    [
        pa.field("low", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        *(pa.field(group, pa.int64(), nullable=False) for group in GROUPS),
    ]
)
_FINEST = -10
_LARGEST_BIN = 2**52
"""Above it, edges next to each other would be the same float64."""
_BLOCK = 32_768
"""Values at a time: what is worked on stays in the processor's cache, which makes it four times as fast."""


class Histogram:
    """Counts of finite values by group, for values that come in pieces and whose range is not known before.

    Bins are half-open, aligned at zero, and of the least width among 2^-10, 2^-9, ... with which at most `num_bins`
    cover all values. They depend on the values alone: not on their order, and not on the pieces.
    """

    def __init__(self, num_bins: int = 64) -> None:
        self._num_bins = num_bins
        self._exponent = _FINEST
        self._low, self._high = math.inf, -math.inf
        self._counts = dict.fromkeys(GROUPS, np.empty(0, np.int64))

    def add(self, group: str, values: NDArray[np.float32]) -> None:
        """Count values of one of GROUPS. Those that are not finite have no bin."""
        if not np.isfinite(values.min(initial=0)) or not np.isfinite(values.max(initial=0)):
            values = values[np.isfinite(values)]
        if not len(values):
            return
        self._cover(float(values.min()), float(values.max()), self._exponent)
        first, scale = self._first(), math.ldexp(1, -self._exponent)
        counts = self._counts[group].copy()
        for begin in range(0, len(values), _BLOCK):
            place = np.multiply(values[begin : begin + _BLOCK], scale, dtype=np.float64)
            np.floor(place, out=place)
            place -= first
            counts += np.bincount(place.astype(np.intp), minlength=len(counts))
        self._counts[group] = counts

    def merge(self, other: "Histogram") -> None:
        """Add what another histogram with as many bins counted: the result is that of adding all values to one."""
        if other._low > other._high:
            return
        self._cover(other._low, other._high, other._exponent)
        for group, counts in other._counts.items():
            self._counts[group] = self._counts[group] + self._moved(counts, other._first(), other._exponent)

    def to_table(self) -> pa.Table:
        """HISTOGRAM_SCHEMA, a row a bin from the lowest value's to the highest's; no rows when nothing was added."""
        size = len(self._counts[GROUPS[0]])
        edges = np.ldexp(self._first() + np.arange(size + 1, dtype=np.float64), self._exponent)
        return pa.table([edges[:-1], edges[1:], *self._counts.values()], schema=HISTOGRAM_SCHEMA)

    def _cover(self, low: float, high: float, exponent: int) -> None:
        """Make the bins those of all values so far and from `low` to `high`, no finer than 2^exponent."""
        if self._low <= low and high <= self._high and exponent <= self._exponent:
            return
        first_before, exponent_before = self._first(), self._exponent
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._exponent = max(self._exponent, exponent)
        while not self._is_covered():
            self._exponent += 1
        for group, counts in self._counts.items():
            self._counts[group] = self._moved(counts, first_before, exponent_before)

    def _moved(self, counts: NDArray[np.int64], first: int, exponent: int) -> NDArray[np.int64]:
        """Counts of bins of width 2^exponent, the first of which is `first`, in the bins that there are now."""
        moved = np.zeros(self._bin_of(self._high) - self._first() + 1, np.int64)
        # Bins are below 2^52: a shift by 62 or more leaves nothing but the sign.
        place = (first + np.arange(len(counts))) >> min(self._exponent - exponent, 62)
        np.add.at(moved, place - self._first(), counts)
        return moved

    def _is_covered(self) -> bool:
        first, last = self._first(), self._bin_of(self._high)
        return last - first < self._num_bins and max(-first, last) < _LARGEST_BIN

    def _first(self) -> int:
        return self._bin_of(self._low) if self._low <= self._high else 0

    def _bin_of(self, value: float) -> int:
        return math.floor(math.ldexp(value, -self._exponent))
