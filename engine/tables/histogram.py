"""Histograms of scores, counted in pieces on many machines and merged exactly."""

import math
from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.tables.columns import required

GROUPS = ("labelled", "eligible", "out")
"""States of an item in a round: labelled before it, able to be picked in it (its picks included), or picked in an
earlier round and not yet labelled. Every scored item is in exactly one group."""
HISTOGRAM_SCHEMA = pa.schema([*required(pa.float64(), "low", "high"), *required(pa.int64(), *GROUPS)])
_FINEST = -10
_LARGEST_BIN = 2**52
"""Above it, adjacent edges would be the same float64."""
_BLOCK = 32_768
"""Values processed at a time; they stay in the processor's cache, which makes it four times as fast."""


class Histogram:
    """Counts of finite values by group. Values come in pieces, and their range is not known in advance.

    Bins are half-open, aligned at zero, and of the least width among 2^-10, 2^-9, ... with which at most `num_bins`
    cover all values. They depend only on the values, not on their order or the pieces.
    """

    def __init__(self, num_bins: int = 64) -> None:
        self._num_bins = num_bins
        # Bin n is from n * 2^exponent on.
        self._exponent = _FINEST
        self._counts = {group: Counter[int]() for group in GROUPS}

    def add(self, group: str, values: NDArray[np.float32]) -> None:
        """Count values of one of GROUPS. Values that are not finite are left out."""
        if not np.isfinite([values.min(initial=0), values.max(initial=0)]).all():
            values = values[np.isfinite(values)]
        if not len(values):
            return
        self._widen(self._exponent, [float(values.min()), float(values.max())])
        for begin in range(0, len(values), _BLOCK):
            bins = np.multiply(values[begin : begin + _BLOCK], math.ldexp(1, -self._exponent), dtype=np.float64)
            np.floor(bins, out=bins)
            first = int(bins.min())
            bins -= first
            counts = enumerate(np.bincount(bins.astype(np.intp)).tolist(), first)
            self._counts[group].update(dict(counts))

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram with as many bins. The result is that of adding all values to one."""
        self._widen(other._exponent, other._edges())
        for group, counts in other._in_bins_of(self._exponent).items():
            self._counts[group].update(counts)

    def to_table(self) -> pa.Table:
        """HISTOGRAM_SCHEMA, a row a bin from the lowest value's to the highest's; no rows when nothing was added."""
        found = [number for counts in self._counts.values() for number in counts]
        bins = range(min(found, default=0), max(found, default=-1) + 1)
        edges = [math.ldexp(number, self._exponent) for number in (*bins, bins.stop)]
        counts = [[counts[number] for number in bins] for counts in self._counts.values()]
        return pa.table([edges[:-1], edges[1:], *counts], schema=HISTOGRAM_SCHEMA)

    def _edges(self) -> list[float]:
        """The lower edges of the bins in use."""
        return [math.ldexp(number, self._exponent) for counts in self._counts.values() for number in counts]

    def _in_bins_of(self, exponent: int) -> dict[str, Counter[int]]:
        """The counts by group in bins of width 2^exponent, which is not less than the present one."""
        moved = {group: Counter[int]() for group in GROUPS}
        for group, counts in self._counts.items():
            for number, count in counts.items():
                moved[group][number >> (exponent - self._exponent)] += count
        return moved

    def _widen(self, exponent: int, values: list[float]) -> None:
        """Make the bins at least 2^exponent wide, and wide enough to cover these values too."""
        exponent, covered = max(exponent, self._exponent), [*self._edges(), *values] or [0.0]
        first, last = (math.floor(math.ldexp(value, -exponent)) for value in (min(covered), max(covered)))
        while last - first >= self._num_bins or max(-first, last) >= _LARGEST_BIN:
            exponent, first, last = exponent + 1, first >> 1, last >> 1
        self._counts, self._exponent = self._in_bins_of(exponent), exponent
