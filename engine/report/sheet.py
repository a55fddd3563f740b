"""What a report shows of a batch: its picks by cluster, and duplicates beside what is kept in their place."""

from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.report.survey import Members
from engine.selection.duplicates import KINDS
from engine.tables.selections import CONTROL, DUPLICATE, PICKED, row_of

FEW = 3
"""Images of a group that are shown before another group has more."""
MOST_PAIRS = 12
"""Duplicates that are shown."""
MOST_LOOKED_AT = 1000
"""Duplicates of a kind among which those to be shown are chosen."""
Row = dict[str, Any]
_CONTROL, _NO_CLUSTER = -2, -1


class Kind(NamedTuple):
    """A kind of duplicates in words."""

    title: str
    more: str = ""


KIND_TEXTS = {
    "bytes": Kind("Same bytes"),
    "picture": Kind("Same picture", "encoded, resized or mirrored anew"),
    "latent": Kind("Nearly the same latent"),
}


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
    if "group_size" not in picks.column_names:
        # A selection of an earlier version, which knew no duplicates.
        picks = picks.append_column("group_size", pa.repeat(1, len(picks)))
    picks = picks.sort_by("rank")
    cluster_B = pc.fill_null(picks["cluster"].cast(pa.int64()), _NO_CLUSTER).to_numpy()
    code_B = np.where(pc.equal(picks["arm"], "control").to_numpy(), _CONTROL, cluster_B)
    code_G, first_G, size_G = np.unique(code_B, return_index=True, return_counts=True)
    order = np.lexsort((first_G, -size_G, code_G != _CONTROL))
    shown = allot(size_G[order].tolist(), most)
    groups, num_left, num_picks_left = [], 0, 0
    for place, num_shown in zip(order, shown, strict=True):
        code, size = int(code_G[place]), int(size_G[place])
        if not num_shown:
            num_left, num_picks_left = num_left + 1, num_picks_left + size
            continue
        rows = picks.take(pa.array(np.flatnonzero(code_B == code)[:num_shown])).to_pylist()
        groups.append(Group(code == _CONTROL, code if code >= 0 else None, size, rows))
    # The control arm has its turn first, so that it is always seen, and stands last.
    return Sheet(sorted(groups, key=lambda group: group.is_control), num_left, num_picks_left)


def allot(sizes: list[int], most: int) -> list[int]:
    """How many images groups of such sizes get, `most` in all: FEW each in turn, and again while there is room."""
    shown, left = [0] * len(sizes), min(most, sum(sizes))
    while left:
        for place, size in enumerate(sizes):
            more = min(FEW, size - shown[place], left)
            shown[place] += more
            left -= more
    return shown


def pairs_of(candidates: pa.Table, picks: pa.Table, members: Members) -> list[Pair]:
    """At most MOST_PAIRS duplicates, of every kind while there are, each of another item where that is possible."""
    candidates = candidates.drop_columns(["latent"])
    found = candidates.filter(pc.equal(candidates["fate"], DUPLICATE))
    by_kind = (found.filter(pc.equal(found["duplicate"], kind)).slice(0, MOST_LOOKED_AT).to_pylist() for kind in KINDS)
    turns = zip_longest(*map(_of_different_items_first, by_kind))
    chosen = [row for turn in turns for row in turn if row][:MOST_PAIRS]
    ordered = sorted(chosen, key=lambda row: KINDS.index(row["duplicate"]))
    return [_pair(row, candidates, picks, members) for row in ordered]


def _of_different_items_first(rows: list[Row]) -> list[Row]:
    seen: dict[tuple[str, str], int] = {}
    turn = []
    for row in rows:
        of = row["of_shard"], row["of_key"]
        turn.append(seen.get(of, 0))
        seen[of] = turn[-1] + 1
    return [rows[place] for place in sorted(range(len(rows)), key=turn.__getitem__)]


def _pair(row: Row, candidates: pa.Table, picks: pa.Table, members: Members) -> Pair:
    kept = {name: row[f"of_{name}"] for name in ("shard", "key", "offset", "size_bytes")}
    of, logit = (kept["shard"], kept["key"]), None
    if of in members.labelled:
        role = "labelled"
    elif of in members.picked_before:
        role = "picked earlier"
    else:
        in_question = row_of(candidates, *of)
        # A control pick is not always a candidate.
        logit = (in_question or row_of(picks, *of))["logit"]
        role = in_question["fate"] if in_question else CONTROL
        role = {PICKED: "picked", CONTROL: "control pick"}.get(role, role)
    return Pair(row["duplicate"], row, {**kept, "logit": logit}, role)
