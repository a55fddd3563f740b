"""From votes to labels, and the end of a round.

What is derived is written again only where it changed: the outcome of every image (consensus/), and a label where the
outcome gives another one. A person's label, or that of another program, stands over votes.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.decisions import forgotten
from engine.campaign.folder import CLOSED_FILE, Campaign, is_closed, is_complete, round_home
from engine.campaign.handed_out import newest_batches, waiting_picks
from engine.campaign.labels import (
    INGEST,
    POSITIONS_SCHEMA,
    REPLACED,
    Identity,
    Snapshot,
    append_labels,
    identities,
    read_snapshot,
)
from engine.campaign.ledger import (
    DONE,
    GIVEN_UP,
    OUT,
    SETTLED,
    STATES,
    TAKEN_BACK,
    Ledger,
    read_ledger,
)
from engine.campaign.origins import picked_origins
from engine.campaign.outcomes import Outcomes
from engine.campaign.places import placed
from engine.campaign.positions import write_positions
from engine.campaign.sharing import share
from engine.campaign.votes import NO_TIME, ingest_numbers, times_of
from engine.errors import InputError
from engine.tables.columns import required
from engine.tables.item_keys import ItemIndex, ItemKeys, are_in, column_at, rows_of_items

CONSENSUS_SCHEMA = pa.schema(
    [
        *required(pa.string(), "item_id", "shard", "key", "state"),
        pa.field("label", pa.string()),
        pa.field("posterior", pa.float64()),
        *required(pa.int64(), "num_votes", "num_skipped"),
    ]
)
"""The outcome of every image that has votes. The metadata say from which votes and options it follows."""


class Settled(NamedTuple):
    """What settling changed: the label before and now of every item with another one, null for none; whether the round
    ended with it; and the ledger."""

    changes: dict[Identity, tuple[str | None, str | None]]
    is_closed: bool
    ledger: Ledger


def settle(campaign: Campaign, forced: frozenset[str] = frozenset()) -> Settled:
    """Derive labels from the votes, and end the round where labels.close_when says so.

    It follows from what is committed alone: whatever was interrupted is completed by the next call. What is out and
    labelled is written into pool.shared_ledger, if there is one.

    Args:
        forced: item_ids whose votes stand over what a person said before they came.
    """
    snapshot = read_snapshot(campaign.home)
    ledger = read_ledger(campaign, snapshot)
    _write_consensus(campaign, ledger, snapshot)
    changes = _write_labels(campaign, ledger, snapshot, forced)
    if changes:
        ledger = read_ledger(campaign, outcomes=ledger.outcomes)
    share(campaign, ledger)
    return Settled(changes, _close_if_due(campaign, ledger), ledger)


def _write_consensus(campaign: Campaign, ledger: Ledger, snapshot: Snapshot) -> None:
    """Keep this version of the outcomes, if the newest one is another."""
    outcomes, folder, labels = ledger.outcomes, campaign.home / "consensus", campaign.config.labels
    has_votes = pa.array(outcomes.num_votes > 0)
    items = ledger.items.select(["item_id", "shard", "key"]).filter(has_votes)
    if not len(items):
        return
    columns = {
        "state": pa.array(np.array(STATES)[ledger.state_U]),
        "label": outcomes.labels,
        "posterior": pa.array(outcomes.posterior_U, from_pandas=True),
        "num_votes": pa.array(outcomes.values_U),
        "num_skipped": pa.array(outcomes.skips_U),
    }
    for name, column in columns.items():
        items = items.append_column(name, column.filter(has_votes))
    ingests = "\n".join(pc.unique(outcomes.votes["ingest"]).to_pylist())
    facts = {"method": labels.consensus, "min_posterior": str(labels.min_posterior), "ingests": ingests}
    facts["labels"] = hashlib.sha256("\n".join(sorted(snapshot.files.values())).encode()).hexdigest()
    table = items.cast(CONSENSUS_SCHEMA).replace_schema_metadata(facts)
    names = list(folder.children())
    # A damaged version must not keep answers out: all of it is derived, and is written again.
    with suppress(InputError):
        if names and (folder / names[-1]).read_table().equals(table):
            return
    (folder / f"{len(names) + 1:06d}.parquet").write_table(table)


def _write_labels(
    campaign: Campaign, ledger: Ledger, snapshot: Snapshot, forced: frozenset[str]
) -> dict[Identity, tuple[str | None, str | None]]:
    """Append the labels that the votes give and the campaign does not have. Returns the labels before and now."""
    items, outcomes = ledger.items, ledger.outcomes
    before = _looked_up(items, snapshot.labels, "label")
    label = pc.if_else(pa.array(ledger.by_votes_U == SETTLED), outcomes.labels, pa.scalar(None, pa.string()))
    is_other = pc.not_equal(pc.fill_null(label, ""), pc.fill_null(before, "")).to_numpy(zero_copy_only=False)
    is_forced = _are_in(items["item_id"], forced) & (_newest_ingests(outcomes) > ledger.word_votes_U)
    is_gone = are_in(items, rows_of_items(sorted(forgotten(campaign.home))))
    is_free = ~items["gold"].to_numpy() & ~is_gone & (~ledger.stands_U | is_forced)
    is_wanted = (outcomes.num_votes > 0) & is_other & is_free
    wanted, latest = items.filter(pa.array(is_wanted)), _latest(outcomes, is_wanted)
    if not len(wanted):
        return {}
    rounds, at = wanted["round"].to_pylist(), datetime.now(UTC)
    origins: dict[Identity, str] = {}
    # Where a selection is damaged the origin is null, and is looked up when it is needed.
    with suppress(InputError):
        origins = picked_origins(campaign.home, set(rounds))
    replaced = set(identities(items.filter(pa.array(is_wanted & is_forced))))
    columns = (
        _shared(wanted["shard"]),
        wanted["key"].to_pylist(),
        *(_shared(c.filter(pa.array(is_wanted))) for c in (label, before)),
    )
    changes: dict[Identity, tuple[str | None, str | None]] = {}
    rows: list[tuple[Any, ...]] = []
    for shard, key, now, then, number, vote in zip(*columns, rounds, latest, strict=True):
        annotator, moment = vote.annotator if vote.is_only else None, vote.answered_at or at
        why = REPLACED if (shard, key) in replaced else None
        rows.append((shard, key, now, number, vote.vendor, annotator, moment, origins.get((shard, key)), why))
        changes[shard, key] = then, now
    # The positions of picks are known: training need not scan their shards.
    write_positions(campaign.home, wanted.select(POSITIONS_SCHEMA.names))
    append_labels(campaign.home, INGEST, rows)
    return changes


def _are_in(names: pa.Array | pa.ChunkedArray, these: Iterable[str]) -> NDArray[np.bool_]:
    found = pc.is_in(names, value_set=pa.array(sorted(these), pa.string()))
    return np.asarray(found)


def _shared(column: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """A column's texts, of which most are repeated, each once in memory."""
    values = [*column.unique().to_pylist(), None]
    return [values[code] for code in pc.fill_null(pc.index_in(column, value_set=column.unique()), -1).to_pylist()]


class _Latest(NamedTuple):
    """Of an image's votes: the vendor, and the annotator of the newest one; the time of the last one; and whether there
    is only one."""

    vendor: str
    annotator: str | None
    answered_at: datetime | None
    is_only: bool


def _newest_ingests(outcomes: Outcomes) -> NDArray[np.int64]:
    """The number of the newest ingest with a vote on each image (U,), 0 without a vote."""
    newest_U = np.zeros(len(outcomes.item_ids), np.int64)
    np.maximum.at(newest_U, outcomes.item_V, ingest_numbers(outcomes.votes))
    return newest_U


def _latest(outcomes: Outcomes, is_wanted_U: NDArray[np.bool_]) -> Iterator[_Latest]:
    """Of the wanted images, in their order; each has a vote."""
    is_own_V = is_wanted_U[outcomes.item_V]
    votes = outcomes.votes.select(["ingest", "vendor", "annotator", "answered_at"]).filter(pa.array(is_own_V))
    item_V = outcomes.item_V[is_own_V]
    order = np.lexsort((np.arange(len(votes)), ingest_numbers(votes), item_V))
    is_last = np.append(np.diff(item_V[order]) > 0, True)[: len(order)]
    last_I = order[is_last]
    at_U = np.full(len(is_wanted_U), NO_TIME)
    np.maximum.at(at_U, item_V, times_of(votes))
    at_I = at_U[item_V[last_I]]
    moments = pa.array(at_I, pa.timestamp("us", tz="UTC"), mask=at_I == NO_TIME).to_pylist()
    newest = votes.take(pa.array(last_I))
    is_only_I = (np.diff(np.flatnonzero(is_last), prepend=-1) == 1).tolist()
    people = _shared(newest["vendor"]), _shared(newest["annotator"])
    yield from map(_Latest._make, zip(*people, moments, is_only_I, strict=True))


def _looked_up(items: pa.Table, table: pa.Table, column: str) -> pa.Array:
    """A column of a table that has a row for an item, or none, in the order of the items."""
    return column_at(table[column], ItemIndex(ItemKeys.of(table)).rows_of(ItemKeys.of(items)))


class Progress(NamedTuple):
    """How far the answers of a round are: its picks, those that nobody waits for any more, those that wait to be sent,
    maybe again, whether the round's answers are all that labels.close_when asks for, and the picks with any answer."""

    total: int
    done: int
    waiting: int
    is_due: bool
    answered: int


def progress_of(campaign: Campaign, ledger: Ledger) -> Progress:
    """How far the answers of the campaign's round are."""
    own = {batch.record for batch in newest_batches(campaign.home, campaign.round)}
    numbers = [number for number, batch in enumerate(ledger.batches) if batch.record in own]
    is_own = np.isin(ledger.batch_R, numbers) & ~ledger.gold_R
    # An image that was taken back and sent again is there twice, and counts once.
    items, last = np.unique(ledger.item_R[is_own][::-1], return_index=True)
    states = ledger.state_R[is_own][::-1][last]
    is_done, is_answered = np.isin(states, DONE), ~np.isin(states, (OUT, GIVEN_UP, TAKEN_BACK))
    if numbers and is_complete(campaign.stage("selection")):
        # What is in its shard no more cannot be sent.
        waiting = placed(campaign.home, waiting_picks(campaign.home, campaign.round))[0]["item_id"].combine_chunks()
        num_waiting = len(waiting)
    else:
        waiting = pa.array([], pa.string())
        num_waiting = ledger.batches[numbers[-1]].manifest["sending"]["waiting"] if numbers else 0
    is_again = pc.is_in(ledger.items["item_id"].take(pa.array(items)), value_set=waiting).to_numpy()
    done, total = int((is_done & ~is_again).sum()), num_waiting + int((~is_again).sum())
    rule = campaign.config.labels.close_when
    # Exactly: 0.55 * 100 is more than 55.
    is_enough = total > 0 and (done == total if rule == "all" else done >= Decimal(str(rule)) * total)
    # A round of which all was taken back unanswered has brought nothing: only people end it.
    is_due = is_enough and bool(is_answered.any())
    return Progress(total, done, num_waiting, is_due, int(is_answered.sum()))


def close(campaign: Campaign, progress: Progress, by: str) -> None:
    """End the campaign's round. A round that ended does not come back."""
    content = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": by, **progress._asdict()}
    (round_home(campaign.home, campaign.round) / CLOSED_FILE).write_json(content)


def _close_if_due(campaign: Campaign, ledger: Ledger) -> bool:
    if is_closed(campaign.home, campaign.round):
        return False
    try:
        progress = progress_of(campaign, ledger)
    except InputError:
        # A damaged selection is reported by whoever needs it; the answers are in.
        return False
    if progress.is_due:
        close(campaign, progress, f"labels.close_when={campaign.config.labels.close_when}")
    return progress.is_due
