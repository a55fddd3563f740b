"""Duplicates where groups of items give one each: the next of a group stands in for one that is a duplicate."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.selection.duplicates import Duplicates

Places = NDArray[np.intp]


def first_of_groups(
    items: pa.Table,
    num_fixed: int,
    group_R: NDArray[np.int64],
    find: Callable[[pa.Table], Duplicates],
    num_known: int,
    fits: Callable[[Places], NDArray[np.bool_]],
) -> tuple[Duplicates, Places, Places]:
    """The duplicates among the items, and the places among the R items after the fixed ones of those that are kept, and
    of those that were shown and had no room in the group of select.per_group. `find` finds duplicates, of which those
    of `num_known` known images have leaders after all items; `fits` says of places which have room, the first ones
    first.

    The items of a group follow one another, in order of priority; a negative group is an item alone. Each group shows
    its first item. Where that duplicates what is fixed, known, or shown by a group before it, the group shows its next,
    until no shown item is a duplicate or has a next. It does so too where a group of select.per_group is full by what
    is shown before it. What is never shown is neither kept nor a duplicate.
    """
    full = np.empty(0, np.intp)
    leader_N, kind_N = np.arange(len(items)), np.full(len(items), None, np.object_)
    is_first_R = np.concatenate([[True], (group_R[1:] != group_R[:-1]) | (group_R[1:] < 0)])[: len(group_R)]
    shown = np.flatnonzero(is_first_R)
    while True:
        place = np.concatenate([np.arange(num_fixed), num_fixed + shown])
        found = find(items.take(pa.array(place)))
        dropped = np.flatnonzero(found.leader_N != np.arange(len(place)))
        # What is known has the numbers after all items.
        leaders = np.concatenate([place, np.arange(num_known) + len(items)])
        leader_N[place[dropped]], kind_N[place[dropped]] = leaders[found.leader_N[dropped]], found.kind_N[dropped]
        single = np.setdiff1d(shown, place[dropped] - num_fixed)
        beyond = single[~fits(single)]
        full = np.union1d(full, beyond)
        gone = np.union1d(place[dropped] - num_fixed, beyond)
        follows = gone[(gone + 1 < len(group_R)) & ~np.append(is_first_R, True)[gone + 1]] + 1
        shown = np.setdiff1d(shown, gone)
        if not len(follows):
            return Duplicates(_final(leader_N), kind_N), shown, full
        shown = np.union1d(shown, follows)


def _final(leader_N: Places) -> Places:
    """The leader's leader, and so on, where a leader was dropped later."""
    is_item = leader_N < len(leader_N)
    while True:
        further = leader_N.copy()
        further[is_item] = leader_N[leader_N[is_item]]
        is_item = further < len(leader_N)
        if (further == leader_N).all():
            return leader_N
        leader_N = further
