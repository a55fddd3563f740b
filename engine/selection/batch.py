"""The batch among the candidates: a control arm, no duplicates, and the rest by a diversity method."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.config.select_options import SelectConfig
from engine.pool.identity import item_id_of
from engine.selection.bounds import Bound, Room
from engine.selection.diversify import Material, choose, cluster
from engine.selection.duplicates import Duplicates, find_duplicates
from engine.selection.stand_ins import first_of_groups
from engine.tables.scores import latents_of
from engine.tables.selections import (
    CONTROL,
    DUPLICATE,
    GROUP_FULL,
    KINDS,
    ORIGIN_CONTROL,
    PASSED_OVER,
    PICKED,
    SELECTION_SCHEMA,
    candidates_schema,
)
from vaal.diversity import Branch
from vaal.duplicates.likeness import Likeness

CONTROL_REASON = "uniform random sample"
_PLACE = ("shard", "key", "offset", "size_bytes", "content_hash")
Places = NDArray[np.intp]


class ShortageError(Exception):
    """Too few candidates and control picks are left without duplicates and within the bound on groups: `num_left`.
    `kinds` are those of the duplicates, and `num_full` how many the bound left out."""

    def __init__(self, num_left: int, kinds: set[str], num_full: int = 0) -> None:
        super().__init__(num_left)
        self.num_left, self.kinds, self.num_full = num_left, kinds, num_full

    @property
    def fix(self) -> str:
        """What helps where there are no more candidates, in words: by the kinds of duplicates that there are."""
        ways = [f"lower it: --set select.budget={self.num_left}"]
        if self.num_full:
            ways.append("raise select.per_group")
        if "latent" in self.kinds:
            ways.append("raise select.duplicate_cosine")
        if self.kinds & {"latent", "picture"}:
            ways.append("compare bytes alone: --set select.duplicates=exact")
        return ", or ".join([", ".join(ways[:-1]), ways[-1]][len(ways) == 1 :])


class Pools(NamedTuple):
    """The items that a batch is made from, tables of `row_schema`: the candidates in order; what is labelled or out at
    a vendor and like some of these items, by (shard, key): see `engine.selection.taken_like`; of what is labelled or
    out all or a random sample, empty where the method does not keep away from it; the draws for the control arm in
    order, and the stratum of each; a random sample that stands for the pool, empty where the method asks for none; the
    places, as they were then, of everything labelled or out that has the bytes of a candidate or draw: see
    `KnownImages`; and the groups of the candidates where each gives one pick: see `first_of_groups`. Where the
    candidates were scored again, their table has more columns; what is taken and was looked at again, and the answers
    of features: see `SecondPass`."""

    candidates: pa.Table
    taken: pa.Table
    centers: pa.Table
    draws: pa.Table
    strata: list[str]
    sample: pa.Table
    known: pa.Table
    group_M: NDArray[np.int64] | None = None
    taken_again: pa.Table | None = None
    answers: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None


class Rules(NamedTuple):
    """How a batch is made: the options; what is done; the number of control picks in each stratum; the seed of the
    round; the salt of the item_ids; the least cosine of duplicates, None where latents do not count; what the score
    that ranks is of an image that is worth nothing, None where there is no such number; and the bound on groups."""

    options: SelectConfig
    branch: Branch
    quotas: dict[str, int]
    seed: int
    salt: str
    cosine: float | None
    worthless: float | None = None
    bound: Bound = Bound()


class Batch(NamedTuple):
    """The tables of selection.parquet and CANDIDATES_FILE, and for the manifest the counts, the objective, and whether
    latents count for duplicates, None where they were not asked for."""

    selection: pa.Table
    candidates: pa.Table
    counts: dict[str, int]
    objective: float | None
    likeness: Likeness | None = None


class _Deduplicated(NamedTuple):
    """`items` are what is taken, the control picks, and from `num_fixed` on the other candidates, whose places in their
    table are `rest`. `found` are the duplicates among the items, `passed` the places of candidates that are none,
    `full` of those whose group is full, and `kept` of those to choose from."""

    items: pa.Table
    num_fixed: int
    rest: Places
    found: Duplicates
    passed: Places
    full: Places
    kept: Places


def make_batch(pools: Pools, rules: Rules) -> Batch:
    """Exactly `select.budget` picks.

    The control arm is chosen first: uniform draws from everything that can be picked, without duplicates of what is
    taken or of each other. Then candidates are dropped that duplicate what is taken, a control pick, or an earlier
    candidate. With a bound on groups the first ones of a group stay candidates, as many as may be picked.

    Raises ShortageError if there are fewer such candidates than are to be picked.
    """
    control = _control(pools, rules)
    left = _deduplicate(pools, control, rules)
    wanted = rules.options.budget - len(control)
    kinds = Counter(left.found.kind_N[left.num_fixed :].tolist())
    if len(left.kept) < wanted:
        raise ShortageError(len(left.kept) + len(control), {kind for kind in KINDS if kinds[kind]}, len(left.full))
    kept = pools.candidates.take(pa.array(left.kept))
    if "cluster" in kept.column_names:
        cluster_M = pools.candidates["cluster"].to_numpy()
        cluster_K = cluster_M[left.kept]
    else:
        cluster_M, cluster_K = np.full(len(pools.candidates), -1, np.int32), cluster(latents_of(kept), rules.seed)
        cluster_M[left.kept] = cluster_K
    material = Material(kept, pools.centers, cluster_K, pools.sample, pools.taken_again, pools.answers, rules.worthless)
    choice = choose(rules.branch.diversity, material, wanted, rules.seed)
    picked = left.kept[choice.picked_B]
    counts = {
        "candidates": len(pools.candidates),
        **{f"duplicates_{kind}": kinds[kind] for kind in KINDS},
        **({"group_full": len(left.full)} if rules.bound.most else {}),
        "control": len(control),
        "picked": rules.options.budget,
    }
    made = (pools, left, picked, cluster_M)
    return Batch(_selection(*made, rules), _candidates(*made), counts, choice.objective)


def _control(pools: Pools, rules: Rules) -> pa.Table:
    """The first draws of each stratum that are not duplicates and have room in their group, up to its quota."""
    items = pa.concat_tables([pools.taken, pools.draws])
    first = len(pools.taken)
    found = find_duplicates(items, first, rules.options.duplicates, rules.cosine, pools.known["content_hash"])
    left, chosen, room, names = Counter(rules.quotas), [], Room(rules.bound.most), rules.bound.names(pools.draws)
    for place in np.flatnonzero(found.leader_N[first:] == np.arange(first, len(items))).tolist():
        if left[pools.strata[place]] > 0 and room.take(names[place]):
            left[pools.strata[place]] -= 1
            chosen.append(place)
    return pools.draws.take(pa.array(chosen, pa.int64()))


def _deduplicate(pools: Pools, control: pa.Table, rules: Rules) -> _Deduplicated:
    rest = np.flatnonzero(~_is_among(pools.candidates, control))
    candidates = pools.candidates.select(pools.taken.column_names).cast(pools.taken.schema)
    items = pa.concat_tables([pools.taken, control, candidates.take(pa.array(rest))])
    num_fixed = len(pools.taken) + len(control)
    known, options, group_M = pools.known["content_hash"], rules.options, pools.group_M
    room, names = rules.bound.after(control), rules.bound.names(items.slice(num_fixed))

    def find(items: pa.Table) -> Duplicates:
        return find_duplicates(items, num_fixed, options.duplicates, rules.cosine, known)

    def fits(places: Places) -> NDArray[np.bool_]:
        return room.fits([names[place] for place in places.tolist()])

    if group_M is None:
        found = find(items)
        single = np.flatnonzero(found.leader_N[num_fixed:] == np.arange(num_fixed, len(items)))
        has_room = fits(single)
        shown, full = single[has_room], single[~has_room]
    else:
        found, shown, full = first_of_groups(items, num_fixed, group_M[rest], find, len(known), fits)
        single = np.flatnonzero(found.leader_N[num_fixed:] == np.arange(num_fixed, len(items)))
    return _Deduplicated(items, num_fixed, rest, found, rest[single], rest[full], rest[shown])


def _is_among(table: pa.Table, others: pa.Table) -> NDArray[np.bool_]:
    # No shard's name has a NUL, so that two items never share a joined name.
    names, found = (pc.binary_join_element_wise(t["shard"], t["key"], "\0") for t in (table, others))
    is_among: NDArray[np.bool_] = pc.is_in(names, value_set=found.combine_chunks()).to_numpy()
    return is_among


def _selection(
    pools: Pools, left: _Deduplicated, picked: Places, cluster_M: NDArray[np.int32], rules: Rules
) -> pa.Table:
    """SELECTION_SCHEMA. The control arm is spread evenly over the ranks, because a vendor may stop half-way."""
    size, num_control = rules.options.budget, rules.options.budget - len(picked)
    is_control = np.zeros(size, np.bool_)
    is_control[((np.arange(num_control) + 0.5) * size / max(1, num_control)).astype(np.intp)] = True
    # Places in `items`, where the control picks are before the candidates.
    place = np.empty(size, np.intp)
    place[is_control] = np.arange(left.num_fixed - num_control, left.num_fixed)
    place[~is_control] = left.num_fixed + np.searchsorted(left.rest, picked)
    rows = left.items.take(pa.array(place))
    cluster, displaced = np.full(size, -1, np.int32), np.full(size, -1, np.intp)
    cluster[~is_control] = cluster_M[picked]
    if "cluster" in rows.column_names:
        cluster = rows["cluster"].to_numpy()
    if rules.branch.candidates == "lowest":
        # A pick that is not among the lowest displaces the next of the lowest that was not picked.
        lowest = left.rest[: len(picked)]
        displaced[np.flatnonzero(~is_control)[~np.isin(picked, lowest)]] = lowest[~np.isin(lowest, picked)]
    losers = pools.candidates.take(_or_null(displaced))
    names = zip(rows["shard"].to_pylist(), rows["key"].to_pylist(), strict=True)
    columns = {
        **{name: rows[name] for name in (*_PLACE, "score")},
        "logit": rows["logit"] if "logit" in rows.column_names else pa.nulls(size, pa.float32()),
        "rank": np.arange(size),
        "item_id": [item_id_of(shard, key, rules.salt) for shard, key in names],
        "arm": np.where(is_control, "control", "query"),
        "reason": np.where(is_control, CONTROL_REASON, rules.branch.reason),
        "origin": np.where(is_control, ORIGIN_CONTROL, rules.branch.origin),
        "cluster": _or_null(cluster),
        "group_size": np.bincount(left.found.leader_N, minlength=len(left.items))[place],
        "displaced_shard": losers["shard"],
        "displaced_key": losers["key"],
        "predicted": rows["predicted"] if "predicted" in rows.column_names else pa.nulls(size, pa.int32()),
    }
    return pa.table(columns, schema=SELECTION_SCHEMA)


def _candidates(pools: Pools, left: _Deduplicated, picked: Places, cluster_M: NDArray[np.int32]) -> pa.Table:
    """`candidates_schema`, in the order of the candidates."""
    table = pools.candidates
    leader, kind = np.full(len(table), -1, np.intp), np.full(len(table), None, object)
    leader[left.rest], kind[left.rest] = left.found.leader_N[left.num_fixed :], left.found.kind_N[left.num_fixed :]
    leader[left.passed] = -1
    fate = np.full(len(table), CONTROL, object)
    for places, what in ((left.rest, DUPLICATE), (left.passed, PASSED_OVER), (left.full, GROUP_FULL), (picked, PICKED)):
        fate[places] = what
    leaders = left.items.select(list(_PLACE))
    of = pa.concat_tables([leaders, pools.known.cast(leaders.schema)]).take(_or_null(leader))
    columns = {
        **{name: table[name] for name in (*_PLACE, "score", "latent")},
        "cluster": _or_null(cluster_M),
        "fate": fate,
        "duplicate": kind,
        **{f"of_{name}": of[name] for name in _PLACE},
    }
    return pa.table(columns, schema=candidates_schema(table.schema.field("latent").type.list_size))


def _or_null(places: NDArray[Any]) -> pa.Array:
    """Numbers, with null for negative ones."""
    return pa.array(places, mask=places < 0)
