"""The next of a group stands in for a duplicate, and no other item is looked at."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.selection.bounds import Room
from engine.selection.duplicates import Duplicates, find_duplicates
from engine.selection.stand_ins import first_of_groups


def shown(
    hashes: str, groups: list[int], num_fixed: int = 0, known: str = "", clips: str = "", most: int = 0
) -> tuple[list[int], list[int]]:
    """The places that are kept, and the leaders of all. A letter is an image's bytes; of `clips`, the group of which
    `most` are to be kept."""
    items = pa.table({"content_hash": pa.array(list(hashes), pa.string())})
    known_bytes = pa.chunked_array([pa.array(list(known), pa.string())])

    def find(items: pa.Table) -> Duplicates:
        return find_duplicates(items, num_fixed, "exact", None, known_bytes)

    def fits(places: NDArray[np.intp]) -> NDArray[np.bool_]:
        return Room(most).fits([clips[place] for place in places.tolist()] if clips else [""] * len(places))

    found, kept, full = first_of_groups(items, num_fixed, np.array(groups), find, len(known), fits)
    assert not {*kept} & {*full}
    return kept.tolist(), found.leader_N.tolist()


def test_each_group_shows_its_first() -> None:
    assert shown("abcdef", [0, 0, 0, 1, 1, 2]) == ([0, 3, 5], [0, 1, 2, 3, 4, 5])


def test_what_is_fixed_or_known_or_shown_before_gives_way_to_the_next() -> None:
    # x is fixed. The first two of group 0 are taken or known; those of group 1 are what group 0 shows, and b.
    assert shown("xxkaaab", [0, 0, 0, 1, 1, 1], num_fixed=1, known="k") == ([2, 5], [0, 0, 7, 3, 3, 3, 6])


def test_a_group_without_others_shows_none() -> None:
    assert shown("aaab", [0, 1, 1, 2]) == ([0, 3], [0, 0, 0, 3])
    assert shown("", []) == ([], [])


def test_a_stand_in_goes_before_the_groups_after_it() -> None:
    # Group 0 comes to show b, so that group 1, whose first is b too, comes to show c.
    assert shown("xxbbc", [0, 0, 1, 1], num_fixed=1) == ([1, 3], [0, 0, 2, 2, 4])


def test_items_without_a_group_stand_alone() -> None:
    assert shown("abac", [0, -1, -1, -1]) == ([0, 1, 3], [0, 1, 0, 3])


def test_the_next_stands_in_for_one_whose_clip_is_full() -> None:
    # Group 0 shows a frame of clip p, so group 1 shows its second, of clip q; group 2 has frames of p alone.
    assert shown("abcde", [0, 1, 1, 2, 2], clips="ppqpp", most=1)[0] == [0, 2]
    assert shown("abcde", [0, 1, 1, 2, 2], clips="ppqpp", most=2)[0] == [0, 1]
    assert shown("abcde", [0, 1, 1, 2, 2], clips="ppqpp", most=0)[0] == [0, 1, 3]


def test_a_stand_in_takes_the_room_of_its_clip_before_groups_after_it() -> None:
    # x is known, so that group 0 comes to show a frame of p, before group 1, which had shown one already.
    assert shown("xabc", [0, 0, 1, 1], known="x", clips="-ppq", most=1)[0] == [1, 3]
