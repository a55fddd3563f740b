"""Which picks and duplicates a report shows: some of every group and of every kind, while there is room."""

from typing import Any

import pyarrow as pa
import pytest

from engine.report.sheet import MOST_PAIRS, allot, groups_of, pairs_of
from engine.tables.selections import CONTROL, DUPLICATE, PASSED_OVER, PICKED


def picks(clusters: list[int | None]) -> pa.Table:
    """Picks by rank; those without a cluster are the control arm."""
    arm = ["control" if cluster is None else "query" for cluster in clusters]
    ranks = list(range(len(clusters)))
    columns = {"rank": ranks, "cluster": pa.array(clusters, pa.int32()), "arm": arm, "group_size": [1] * len(ranks)}
    return pa.table(columns).take(pa.array(ranks[::-1], pa.int64()))


def test_groups_that_have_no_room_have_no_rows() -> None:
    # The control arm, though smallest and last, is shown.
    groups = groups_of(picks([3, 7, 5, 7, 3, 5, 9, 3, 7, 7, None]), 7)
    shown = [(group.cluster, group.size, [row["rank"] for row in group.rows]) for group in groups]
    assert shown == [(7, 4, [1, 3, 8]), (3, 3, [0, 4, 7]), (5, 2, []), (9, 1, []), (None, 1, [10])]
    assert groups_of(picks([]), 8) == []


@pytest.mark.parametrize(
    ("sizes", "most", "shown"),
    [
        ([100], 48, [48]),
        ([7, 100, 2], 48, [7, 39, 2]),
        ([10, 10, 10], 12, [6, 3, 3]),
        ([5, 5], 48, [5, 5]),
        ([1] * 5, 3, [1, 1, 1, 0, 0]),
        ([4, 4, 4], 7, [3, 3, 1]),
        ([], 48, []),
    ],
)
def test_images_are_allotted_in_turns(sizes: list[int], most: int, shown: list[int]) -> None:
    assert allot(sizes, most) == shown


def candidate(key: str, fate: str, kind: str | None = None, of: str | None = None) -> dict[str, Any]:
    row = {
        "shard": "s",
        "key": key,
        "offset": 1,
        "size_bytes": 2,
        "score": float(key[1:]),
        "latent": None,
        "fate": fate,
    }
    kept = {"of_shard": of and "s", "of_key": of, "of_offset": of and 3, "of_size_bytes": of and 4}
    return row | {"duplicate": kind, **kept}


def test_examples_are_of_every_kind_and_of_different_items() -> None:
    copies = [candidate(f"a{n}", DUPLICATE, "bytes", "p1") for n in range(20)]
    others = [candidate(f"b{n}", DUPLICATE, "bytes", f"p{n}") for n in (2, 3)]
    latents = [candidate(f"c{n}", DUPLICATE, "latent", f"p{n}") for n in (1, 2)]
    kept = [candidate(f"p{n}", PICKED) for n in (1, 2, 3)]
    pairs = pairs_of(pa.Table.from_pylist([*copies, *others, *kept, *latents]), pa.table({}), set())
    assert len(pairs) == MOST_PAIRS
    bytes_first = ["a0", "b2", "b3", *(f"a{n}" for n in range(1, 8))]
    assert [pair.dropped["key"] for pair in pairs] == [*bytes_first, "c1", "c2"]


def test_what_is_kept_is_named_by_what_became_of_it() -> None:
    keys = {"p1": "picked", "p2": "passed over", "p3": "control pick", "p4": "control pick", "p5": "labelled",
            "p6": "picked earlier"}  # fmt: skip
    fates = [candidate("p1", PICKED), candidate("p2", PASSED_OVER), candidate("p3", CONTROL)]
    rows = [candidate(f"d{n}", DUPLICATE, "bytes", key) for n, key in enumerate(keys)]
    # The fourth is a control pick that is no candidate: its score stands in the selection alone.
    selection = pa.table({"shard": ["s"], "key": ["p4"], "score": [4.0]})
    pairs = pairs_of(pa.Table.from_pylist([*rows, *fates]), selection, {("s", "p5")})
    assert {pair.kept["key"]: pair.kept_as for pair in pairs} == keys
    assert [pair.kept["score"] for pair in pairs] == [1, 2, 3, 4, None, None]
    assert {(pair.kept["offset"], pair.kept["size_bytes"]) for pair in pairs} == {(3, 4)}
