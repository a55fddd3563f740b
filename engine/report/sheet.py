"""What a report shows of a batch: its picks by cluster, and duplicates beside what is kept in their place."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.report.thumbnails import Identity
from engine.tables.rows import Row
from engine.tables.selections import CONTROL, DUPLICATE, KINDS, PICKED, row_of

FEW = 3
"""Images of a group that are shown before another group has more."""
MOST_PAIRS = 12
"""Duplicates that are shown."""
MOST_LOOKED_AT = 1000
"""Duplicates of a kind among which those to be shown are chosen."""
KIND_TEXTS = {
    "bytes": "Same bytes",
    "picture": "Same picture, saved, resized or mirrored",
    "latent": "Nearly the same description by the network (latent)",
}
_CONTROL = -1


class Group(NamedTuple):
    """The picks of a cluster, or the control arm, which has none: how many, and the first by rank."""

    cluster: int | None
    size: int
    rows: list[Row]


class Pair(NamedTuple):
    """A duplicate, its kind, and what is kept in its place: a row with score None where that is not known, and what
    became of it in words."""

    kind: str
    dropped: Row
    kept: Row
    kept_as: str


def groups_of(picks: pa.Table, most: int) -> list[Group]:
    """Groups with `most` rows in all, largest first, the control arm last; with equal sizes by rank."""
    picks = picks.sort_by("rank")
    # Where the pool has clusters, a control pick is in one, too.
    is_query = pc.equal(picks["arm"], "query")
    cluster_B = pc.if_else(is_query, pc.fill_null(picks["cluster"], _CONTROL), _CONTROL).to_numpy()
    cluster_G, first_G, size_G = np.unique(cluster_B, return_index=True, return_counts=True)
    # The control arm has its turn first, so that it is always seen, and stands last.
    order = np.lexsort((first_G, -size_G, cluster_G != _CONTROL))
    clusters, sizes = cluster_G[order].tolist(), size_G[order].tolist()
    groups = []
    for cluster, size, num_shown in zip(clusters, sizes, allot(sizes, most), strict=True):
        rows = picks.take(pa.array(np.flatnonzero(cluster_B == cluster)[:num_shown])).to_pylist()
        groups.append(Group(None if cluster == _CONTROL else cluster, size, rows))
    return sorted(groups, key=lambda group: group.cluster is None)


def allot(sizes: list[int], most: int) -> list[int]:
    """How many images groups of such sizes get, `most` in all: FEW each in turn, and again while there is room."""
    shown, left = [0] * len(sizes), min(most, sum(sizes))
    while left:
        for place, size in enumerate(sizes):
            more = min(FEW, size - shown[place], left)
            shown[place] += more
            left -= more
    return shown


def pairs_of(candidates: pa.Table, picks: pa.Table, labelled: set[Identity]) -> list[Pair]:
    """At most MOST_PAIRS duplicates, of every kind while there are, each of another item where that is possible."""
    candidates = candidates.drop_columns(["latent"])
    found = candidates.filter(pc.equal(candidates["fate"], DUPLICATE))
    by_kind = (found.filter(pc.equal(found["duplicate"], kind)).slice(0, MOST_LOOKED_AT).to_pylist() for kind in KINDS)
    chosen = in_turns(map(_of_different_items_first, by_kind))[:MOST_PAIRS]
    ordered = sorted(chosen, key=lambda row: KINDS.index(row["duplicate"]))
    return [_pair(row, candidates, picks, labelled) for row in ordered]


def in_turns(lists: Iterable[list[Row]]) -> list[Row]:
    """The first row of each list, then the second of each, and so on."""
    return [row for turn in zip_longest(*lists) for row in turn if row]


def _of_different_items_first(rows: list[Row]) -> list[Row]:
    by_item: dict[Identity, list[Row]] = defaultdict(list)
    for row in rows:
        by_item[row["of_shard"], row["of_key"]].append(row)
    return in_turns(by_item.values())


def _pair(row: Row, candidates: pa.Table, picks: pa.Table, labelled: set[Identity]) -> Pair:
    kept = {name: row[f"of_{name}"] for name in ("shard", "key", "offset", "size_bytes")}
    # A selection of an older version has no hashes.
    kept["content_hash"] = row.get("of_content_hash")
    of = kept["shard"], kept["key"]
    if of in labelled:
        found, role = {}, "labelled"
    elif found := row_of(candidates, *of):
        role = {PICKED: "picked", CONTROL: "control pick"}.get(found["fate"], found["fate"])
    else:
        # A control pick is not always a candidate; what is none either was picked in an earlier round.
        found = row_of(picks, *of)
        role = "control pick" if found else "picked earlier"
    return Pair(row["duplicate"], row, {**kept, "score": found.get("score")}, role)
