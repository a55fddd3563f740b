"""The selection, a pure function of committed scores and weights, labels and configuration.

It is exactly the b lowest logits, unless training found no signal: see `engine.fallback`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.campaign import Campaign, is_complete, read_manifest, round_home, write_manifest
from engine.errors import ConfigError, InputError
from engine.fallback import (
    MOST_CENTERS,
    first_drawn,
    method_without_signal,
    most_spread,
    num_candidates_for,
    with_draws,
)
from engine.identity import item_id_of
from engine.labels import labelled_items, labels_fingerprints
from engine.storage import Location
from vaal.ranking import Scored, top_b

SELECTION_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("logit", pa.float32(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("cluster", pa.int32()),
    ]
)
CANDIDATE_COLUMNS = ["shard", "key", "offset", "size_bytes", "logit"]
REASONS = {
    None: "lowest labelled-logit",
    "random": "random, for want of a signal",
    "diversity": "spread over the latents, for want of a signal",
}
"""By the method that picks without a signal."""


def select(campaign: Campaign) -> dict[str, Any]:
    """Pick the round's images and complete the selection stage. Returns its manifest.

    Candidates are the scored items that have no label and were not picked in an earlier round.

    Raises:
        InputError: training or scoring is not complete, or a scores file is not the committed one.
        ConfigError: fewer candidates than the budget.
        NotAcceptableError: there is no signal, and select.when_no_signal is refuse.
    """
    folder = campaign.stage("selection")
    if is_complete(folder):
        return read_manifest(folder, "select")
    scores = read_manifest(campaign.stage("scores"), "score")
    method = method_without_signal(campaign, read_manifest(campaign.stage("train"), "train"))
    options = campaign.config.select
    picked_before = picked_items(campaign.home, before=campaign.round)
    candidates, best = _reduce(campaign, scores["shards"], picked_before, method)
    if candidates < options.budget:
        raise ConfigError(
            f"select.budget={options.budget}: only {candidates} items are neither labelled, quarantined nor picked "
            f"before; lower it: --set select.budget={max(1, candidates)}"
        )
    sha256 = (folder / "selection.parquet").write_table(_selection(best, campaign.config.salt, REASONS[method]))
    return write_manifest(
        folder,
        campaign,
        inputs={
            **{
                stage: hashlib.sha256((campaign.stage(stage) / "manifest.json").read_bytes()).hexdigest()
                for stage in ("train", "scores")
            },
            **labels_fingerprints(campaign.home),
        },
        counts={"candidates": candidates, "picked": len(best), "picked_before": len(picked_before)},
        files={"selection.parquet": sha256},
        details={
            "signal": "none" if method else "present",
            "when_no_signal": method,
            "seed": options.seed,
            # Without a signal the logits decide nothing, and no logit divides the picked items from the others.
            "highest_picked_logit": None if method else best["logit"][-1].as_py(),
        },
    )


class _Lowest:
    """The first `size` rows in some order of tables that come one after another, in memory of twice as many rows."""

    def __init__(self, size: int, first: Callable[[pa.Table, int], pa.Table]) -> None:
        self._size, self._first = size, first
        self._tables: list[pa.Table] = []
        self._num_held = self.num_seen = 0

    def add(self, table: pa.Table) -> None:
        self.num_seen += len(table)
        self._num_held += len(table)
        self._tables.append(table)
        # Reducing at twice the size makes the whole a linear pass in memory of the size.
        if self._num_held >= 2 * self._size:
            self._tables = [self.rows()]
            self._num_held = len(self._tables[0])

    def rows(self) -> pa.Table:
        return self._first(pa.concat_tables(self._tables), self._size)


def _reduce(
    campaign: Campaign, entries: list[dict[str, Any]], picked_before: pa.Table, method: str | None
) -> tuple[int, pa.Table]:
    """The number of candidates, and those that are picked, in the order of choice; fewer where there are fewer."""
    options = campaign.config.select
    excluded: dict[str, set[str]] = defaultdict(set)
    for shard, key in labelled_items(campaign.home) | set(
        zip(picked_before["shard"].to_pylist(), picked_before["key"].to_pylist(), strict=True)
    ):
        excluded[shard].add(key)
    is_diverse = method == "diversity"
    size = num_candidates_for(options.budget) if is_diverse else options.budget
    candidates = _Lowest(size, first_drawn if method else _lowest)
    taken = _Lowest(MOST_CENTERS, first_drawn)
    for entry in entries:
        table = read_scores(
            campaign.stage("scores"), entry, [*CANDIDATE_COLUMNS, "latent"] if is_diverse else CANDIDATE_COLUMNS
        )
        if method:
            table = with_draws(table, options.seed)
        is_taken = pa.array([key in excluded[entry["shard"]] for key in table["key"].to_pylist()], pa.bool_())
        candidates.add(table.filter(pc.invert(is_taken)))
        if is_diverse:
            taken.add(table.filter(is_taken))
    best = candidates.rows()
    if is_diverse and len(best) >= options.budget:
        best = most_spread(best, taken.rows(), options.budget)
    return candidates.num_seen, best


def _lowest(table: pa.Table, b: int) -> pa.Table:
    names = [np.array(table[column].to_pylist(), dtype=np.str_) for column in ("shard", "key")]
    return table.take(pa.array(top_b(Scored(table["logit"].to_numpy(), *names), b)))


def _selection(best: pa.Table, salt: str, reason: str) -> pa.Table:
    count = len(best)
    identities = zip(best["shard"].to_pylist(), best["key"].to_pylist(), strict=True)
    columns: dict[str, Any] = {name: best[name] for name in CANDIDATE_COLUMNS} | {
        "rank": pa.array(range(count), pa.int64()),
        "item_id": pa.array([item_id_of(shard, key, salt) for shard, key in identities], pa.string()),
        "arm": pa.array(["query"] * count, pa.string()),
        "reason": pa.array([reason] * count, pa.string()),
        "cluster": pa.nulls(count, pa.int32()),
    }
    return pa.table([columns[name] for name in SELECTION_SCHEMA.names], schema=SELECTION_SCHEMA)


def read_scores(folder: Location, entry: dict[str, Any], columns: list[str]) -> pa.Table:
    """Columns of one committed scores file; `entry` is its row in the manifest.

    Raises:
        InputError: the file is missing or is not the one that was committed.
    """
    file = folder / entry["file"]
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise InputError(
            f"{file}: damaged since it was committed; delete it and {folder}/manifest.json, then score again"
        )
    return pq.read_table(pa.BufferReader(content), columns=columns).replace_schema_metadata()


def picked_items(home: Location, before: int) -> pa.Table:
    """Everything picked in the rounds before: item_id, shard, key, round, offset, size_bytes."""
    columns = ["item_id", "shard", "key", "offset", "size_bytes"]
    tables = [pa.schema([*(SELECTION_SCHEMA.field(name) for name in columns), ("round", pa.int32())]).empty_table()]
    for number in range(before):
        folder = round_home(home, number) / "selection"
        if is_complete(folder):
            table = (folder / "selection.parquet").read_table(columns)
            tables.append(table.append_column("round", pa.array([number] * len(table), pa.int32())))
    return pa.concat_tables(tables)
