"""The batch among the candidates: a control arm, no duplicates, spread as the method says; and what became of each."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.config.options import SelectConfig
from engine.pool.identity import item_id_of
from engine.selection.diversify import choose, cluster
from engine.selection.duplicates import Duplicates, find_duplicates
from engine.tables.scores import latents_of
from engine.tables.selections import CONTROL, DUPLICATE, KINDS, PASSED_OVER, PICKED, SELECTION_SCHEMA, candidates_schema

CONTROL_REASON = "uniform random sample"
MOST_CENTERS = 10_000
"""Items already taken that a method keeps away from; where there are more, this many are drawn."""
_PLACE = ("shard", "key", "offset", "size_bytes")
Places = NDArray[np.intp]


class ShortageError(Exception):
    """Of the candidates, and the control picks, too few are no duplicates: `num_left`."""

    def __init__(self, num_left: int) -> None:
        super().__init__(num_left)
        self.num_left = num_left


class Pools(NamedTuple):
    """What a batch is made of, tables of `row_schema`: the candidates in the order in which they come into question;
    what is labelled or out at a vendor; the draws for the control arm in their order, and the stratum of each."""

    candidates: pa.Table
    taken: pa.Table
    draws: pa.Table
    strata: list[str]


class Rules(NamedTuple):
    """How a batch is made: the options; the method and its reason; whether candidates come in the order of their
    logits; how many control picks each stratum gets; the seed of the round; and the salt of the item_ids."""

    options: SelectConfig
    method: str
    reason: str
    is_by_logit: bool
    quotas: dict[str, int]
    seed: int
    salt: str


class Batch(NamedTuple):
    """selection.parquet, CANDIDATES_FILE, and the counts and the method's objective for the manifest."""

    selection: pa.Table
    candidates: pa.Table
    counts: dict[str, int]
    objective: float | None


class _Deduplicated(NamedTuple):
    """`items` are those taken, the control picks, and from place `num_fixed` on the `rest` of the candidates, places in
    their table; `found` says which of the items are duplicates, `kept` which candidates are none."""

    items: pa.Table
    num_fixed: int
    rest: Places
    found: Duplicates
    kept: Places


def make_batch(pools: Pools, rules: Rules) -> Batch:
    """Exactly `select.budget` picks.

    The control arm comes first: its draws are uniform over all that can be picked, but for duplicates of what is taken
    or of each other. A candidate goes if it is a duplicate of what is taken, of a control pick, or of a candidate
    before it.

    Raises:
        ShortageError: there are fewer candidates without duplicates than are to be picked.
    """
    control = _control(pools, rules)
    left = _deduplicate(pools, control, rules.options)
    wanted = rules.options.budget - len(control)
    if len(left.kept) < wanted:
        raise ShortageError(len(left.kept) + len(control))
    kept = pools.candidates.take(pa.array(left.kept))
    cluster_K = cluster(latents_of(kept), rules.seed)
    choice = choose(rules.method, kept, _some(pools.taken, rules.seed), cluster_K, wanted, rules.seed)
    cluster_M = np.full(len(pools.candidates), -1, np.int32)
    cluster_M[left.kept] = cluster_K
    kinds = Counter(kind for kind in left.found.kind_N[left.num_fixed :] if kind)
    counts = {
        "candidates": len(pools.candidates),
        **{f"duplicates_{kind}": kinds[kind] for kind in KINDS},
        "control": len(control),
        "picked": rules.options.budget,
    }
    picked = left.kept[choice.picked_B]
    return Batch(
        _selection(pools, left, picked, cluster_M, rules),
        _candidates(pools, left, picked, cluster_M),
        counts,
        choice.objective,
    )


def _control(pools: Pools, rules: Rules) -> pa.Table:
    """The first draws of each stratum that are no duplicates, as many as it gets; fewer where there are no more."""
    items = pa.concat_tables([pools.taken, pools.draws])
    options, first = rules.options, len(pools.taken)
    found = find_duplicates(items, first, options.duplicates, options.duplicate_cosine)
    left, chosen = Counter(rules.quotas), []
    for place in np.flatnonzero(found.leader_N[first:] == np.arange(first, len(items))).tolist():
        if left[pools.strata[place]] > 0:
            left[pools.strata[place]] -= 1
            chosen.append(place)
    return pools.draws.take(pa.array(chosen, pa.int64()))


def _deduplicate(pools: Pools, control: pa.Table, options: SelectConfig) -> _Deduplicated:
    rest = np.flatnonzero(~_is_among(pools.candidates, control))
    items = pa.concat_tables([pools.taken, control, pools.candidates.take(pa.array(rest))])
    num_fixed = len(pools.taken) + len(control)
    found = find_duplicates(items, num_fixed, options.duplicates, options.duplicate_cosine)
    is_kept = found.leader_N[num_fixed:] == np.arange(num_fixed, len(items))
    return _Deduplicated(items, num_fixed, rest, found, rest[is_kept])


def _is_among(table: pa.Table, others: pa.Table) -> NDArray[np.bool_]:
    # A shard's name holds no NUL, so that no two items share a joined name.
    names, found = (pc.binary_join_element_wise(t["shard"], t["key"], "\0") for t in (table, others))
    is_among: NDArray[np.bool_] = pc.is_in(names, value_set=found.combine_chunks()).to_numpy()
    return is_among


def _some(taken: pa.Table, seed: int) -> pa.Table:
    """All that is taken, or a random sample where that is too much to keep away from."""
    if len(taken) <= MOST_CENTERS:
        return taken
    rng = np.random.default_rng([seed, MOST_CENTERS])
    return taken.take(pa.array(np.sort(rng.choice(len(taken), MOST_CENTERS, replace=False))))


def _selection(
    pools: Pools, left: _Deduplicated, picked: Places, cluster_M: NDArray[np.int32], rules: Rules
) -> pa.Table:
    """SELECTION_SCHEMA. The control arm is spread evenly over the ranks: a vendor may stop half-way."""
    size, num_control = rules.options.budget, rules.options.budget - len(picked)
    at_control = ((np.arange(num_control) + 0.5) * size / max(1, num_control)).astype(np.intp)
    at_query = np.setdiff1d(np.arange(size), at_control)
    # Places in `items`, where the control picks stand before the candidates.
    first_control = left.num_fixed - num_control
    place = np.empty(size, np.intp)
    place[at_control] = np.arange(first_control, left.num_fixed)
    place[at_query] = left.num_fixed + np.searchsorted(left.rest, picked)
    rows = left.items.take(pa.array(place))
    led = np.bincount(left.found.leader_N, minlength=len(left.items))
    cluster = np.full(size, -1, np.int32)
    cluster[at_query] = cluster_M[picked]
    displaced = np.full(size, -1, np.intp)
    if rules.is_by_logit:
        displaced[at_query] = _displaced(left.rest[: len(picked)], picked)
    losers = pools.candidates.take(_or_null(displaced))
    arm, reason = np.full(size, "query", object), np.full(size, rules.reason, object)
    arm[at_control], reason[at_control] = "control", CONTROL_REASON
    names = zip(rows["shard"].to_pylist(), rows["key"].to_pylist(), strict=True)
    columns: dict[str, Any] = {
        **{name: rows[name] for name in (*_PLACE, "logit")},
        "rank": pa.array(np.arange(size)),
        "item_id": pa.array([item_id_of(shard, key, rules.salt) for shard, key in names], pa.string()),
        "arm": pa.array(arm, pa.string()),
        "reason": pa.array(reason, pa.string()),
        "cluster": _or_null(cluster),
        "group_size": pa.array(led[place].astype(np.int32)),
        "displaced_shard": losers["shard"],
        "displaced_key": losers["key"],
    }
    return pa.table([columns[name] for name in SELECTION_SCHEMA.names], schema=SELECTION_SCHEMA)


def _displaced(lowest: Places, picked: Places) -> Places:
    """For each pick that is not among the lowest, in turn, the lowest that was not picked; -1 for the others."""
    found = np.full(len(picked), -1, np.intp)
    found[~np.isin(picked, lowest)] = lowest[~np.isin(lowest, picked)]
    return found


def _candidates(pools: Pools, left: _Deduplicated, picked: Places, cluster_M: NDArray[np.int32]) -> pa.Table:
    """`candidates_schema`, in the order of the candidates."""
    table = pools.candidates
    leader, fate = np.full(len(table), -1, np.intp), np.full(len(table), CONTROL, object)
    fate[left.rest], leader[left.rest] = (
        DUPLICATE,
        left.found.leader_N[left.num_fixed :],
    )
    fate[left.kept], leader[left.kept] = PASSED_OVER, -1
    fate[picked] = PICKED
    kind = np.full(len(table), None, object)
    kind[left.rest] = left.found.kind_N[left.num_fixed :]
    of = left.items.take(_or_null(leader))
    columns: dict[str, Any] = {
        **{name: table[name] for name in (*_PLACE, "logit", "latent")},
        "cluster": _or_null(cluster_M),
        "fate": pa.array(fate, pa.string()),
        "duplicate": pa.array(kind, pa.string()),
        **{f"of_{name}": of[name] for name in _PLACE},
    }
    schema = candidates_schema(table.schema.field("latent").type.list_size)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _or_null(places: NDArray[Any]) -> pa.Array:
    """With nulls for negative numbers."""
    return pa.array(places, mask=places < 0)
