"""Shares of a population by a count of a random sample, the difference of two, and how both are written.

All intervals are 95 % ones.
"""

import math
from typing import NamedTuple

CONFIDENCE = 0.95
_Z = 1.959963984540054
WIDEST = 0.2
"""A share whose interval may reach farther than this to either side says next to nothing."""
WANTED = 0.1
"""A share that is known to this on either side is worth reading."""


class Share(NamedTuple):
    """A share and its 95 % interval, of `total` cases."""

    value: float
    low: float
    high: float
    total: int

    @property
    def text(self) -> str:
        """The share and its interval in percent, without the number of cases."""
        return "{}% ({} to {})".format(*self._rounded)

    @property
    def points_text(self) -> str:
        """A difference of shares in points, with its sign, and that it may be none."""
        unsure = ": cannot be told apart" if self.low <= 0 <= self.high else ""
        return "{} points ({} to {})".format(*self._rounded) + unsure

    @property
    def _rounded(self) -> list[str]:
        return [f"{round(100 * share)}".replace("-", "−") for share in (self.value, self.low, self.high)]


def wilson(hits: int, total: int) -> Share:
    """hits / total with Wilson's score interval. `total` is at least 1."""
    value, square = hits / total, _Z**2 / total
    middle = (value + square / 2) / (1 + square)
    reach = _Z / (1 + square) * math.sqrt(value * (1 - value) / total + square / 4 / total)
    # Exact at the ends, where rounding would leave a last digit.
    low, high = middle - reach if hits else 0.0, middle + reach if hits < total else 1.0
    return Share(value, low, high, total)


def difference(first: Share, second: Share) -> Share:
    """first - second, of independent samples with Wilson's intervals, with Newcombe's (Statistics in Medicine 17, 1998,
    873-890, method 10)."""
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Share(value, value - below, value + above, first.total + second.total)


def reach_of(total: int) -> float:
    """How far Wilson's interval reaches to either side of a share of 1/2, where it is widest."""
    return _Z / 2 / math.sqrt(total + _Z**2)


def enough_for(reach: float) -> int:
    """The least number of cases with which the interval never reaches farther than this."""
    return math.ceil((_Z / 2 / reach) ** 2 - _Z**2)


def few_text(total: int, what: str) -> str:
    """That so many cases, one of which is `what` by name, say next to nothing of the pool, and how many would; "" where
    they do not."""
    if reach_of(total) <= WIDEST:
        return ""
    known = f"a share of it, such as the accuracy, is known to ±{100 * reach_of(total):.0f} points at worst"
    enough = f"±{100 * WANTED:.0f} points take {enough_for(WANTED)}"
    said = f"{total:,} {what} says" if total == 1 else f"{total:,} {what}s say"
    return f"{said} next to nothing of the pool: {known}, and {enough}"
