"""The bound on the picks of one group in a batch: select.per_group."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.campaign.labels import identities
from engine.pool.identity import ALONE, Groups


class Bound(NamedTuple):
    """At most `most` picks of a group in a batch; 0 is no bound. An item without a group is one of its own."""

    most: int = 0
    groups: Groups = ALONE

    def names(self, items: pa.Table) -> list[str]:
        """The group of each item; empty for one of its own, and for all without a bound."""
        return [self.groups.of(*item) for item in identities(items)] if self.most else [""] * len(items)

    def after(self, picks: pa.Table) -> "Room":
        """The room that these picks leave."""
        return Room(self.most, Counter(self.names(picks)))


class Room:
    """How many picks a group still may have; items take it in their order."""

    def __init__(self, most: int, used: Counter[str] | None = None) -> None:
        self._most, self._used = most, Counter(used or {})

    def take(self, name: str) -> bool:
        """Whether there is room for one more of a group, which is then taken."""
        if not name or not self._most:
            return True
        self._used[name] += 1
        return self._used[name] <= self._most

    def fits(self, names: list[str]) -> NDArray[np.bool_]:
        """Which of N items (N,) have room, the first ones first. Takes nothing of it."""
        room = Room(self._most, self._used)
        return np.fromiter((room.take(name) for name in names), np.bool_, len(names))
