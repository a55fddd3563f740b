"""What a report shows of a batch: its picks by cluster, and duplicates beside what is kept in their place."""

from collections import Counter
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.report.thumbnails import Identity
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
Row = dict[str, Any]
_CONTROL, _NO_CLUSTER = -2, -1


class Group(NamedTuple):
    """The control arm, or the picks of a cluster, None where they have none: how many, and the first by rank."""

    is_control: bool
    cluster: int | None
    size: int
    rows: list[Row]


class Sheet(NamedTuple):
    """The groups that are shown, and the number of those that are not and of the picks in them."""

    groups: list[Group]
    num_groups_left: int
    num_picks_left: int

    def rows(self) -> list[Row]:
        """All that is shown, in its order."""
        return [row for group in self.groups for row in group.rows]


class Pair(NamedTuple):
    """A duplicate, its kind, and what is kept in its place: a row with logit None where that is not known, and what
    became of it in words."""

    kind: str
    dropped: Row
    kept: Row
    kept_as: str


def sheet_of(picks: pa.Table, most: int) -> Sheet:
    """At most `most` picks by cluster, largest groups first, the control arm last; with equal sizes by rank."""
    picks = picks.sort_by("rank")
    cluster_B = pc.fill_null(picks["cluster"].cast(pa.int64()), _NO_CLUSTER).to_numpy()
    code_B = np.where(pc.equal(picks["arm"], "control").to_numpy(), _CONTROL, cluster_B)
    code_G, first_G, size_G = np.unique(code_B, return_index=True, return_counts=True)
    # The control arm has its turn first, so that it is always seen, and stands last.
    order = np.lexsort((first_G, -size_G, code_G != _CONTROL))
    sizes = size_G[order].tolist()
    groups, sizes_left = [], []
    for code, size, num_shown in zip(code_G[order].tolist(), sizes, allot(sizes, most), strict=True):
        if num_shown:
            rows = picks.take(pa.array(np.flatnonzero(code_B == code)[:num_shown])).to_pylist()
            groups.append(Group(code == _CONTROL, code if code >= 0 else None, size, rows))
        else:
            sizes_left.append(size)
    return Sheet(sorted(groups, key=lambda group: group.is_control), len(sizes_left), sum(sizes_left))


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
    turns = zip_longest(*map(_of_different_items_first, by_kind))
    chosen = [row for turn in turns for row in turn if row][:MOST_PAIRS]
    ordered = sorted(chosen, key=lambda row: KINDS.index(row["duplicate"]))
    return [_pair(row, candidates, picks, labelled) for row in ordered]


def _of_different_items_first(rows: list[Row]) -> list[Row]:
    seen = Counter[Identity]()

    def turn(row: Row) -> int:
        of = row["of_shard"], row["of_key"]
        seen[of] += 1
        return seen[of]

    return sorted(rows, key=turn)


def _pair(row: Row, candidates: pa.Table, picks: pa.Table, labelled: set[Identity]) -> Pair:
    kept = {name: row[f"of_{name}"] for name in ("shard", "key", "offset", "size_bytes")}
    of = kept["shard"], kept["key"]
    if of in labelled:
        found, role = {}, "labelled"
    elif found := row_of(candidates, *of):
        role = {PICKED: "picked", CONTROL: "control pick"}.get(found["fate"], found["fate"])
    else:
        # A control pick is not always a candidate; what is none either was picked in an earlier round.
        found = row_of(picks, *of)
        role = "control pick" if found else "picked earlier"
    return Pair(row["duplicate"], row, {**kept, "logit": found.get("logit")}, role)
