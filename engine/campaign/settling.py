"""From votes to labels, and the end of a round.

What is derived is written again only where it changed: the outcome of every image (consensus/), and a label where the
outcome gives another one. A person's label, or that of another program, stands over votes.
"""

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.decisions import forgotten
from engine.campaign.folder import CLOSED_FILE, Campaign, is_closed, is_complete, round_home
from engine.campaign.handed_out import newest_batches, waiting_picks
from engine.campaign.labels import (
    INGEST,
    LABELS_SCHEMA,
    POSITIONS_SCHEMA,
    REPLACED,
    Identity,
    append_labels,
    identities,
)
from engine.campaign.last_words import Words
from engine.campaign.ledger import (
    DONE,
    GIVEN_UP,
    OUT,
    SETTLED,
    STATES,
    TAKEN_BACK,
    Ledger,
    SentAndSaid,
    read_ledger,
)
from engine.campaign.origins import origins_among
from engine.campaign.outcomes import Counts, Outcomes
from engine.campaign.places import placed
from engine.campaign.positions import write_positions
from engine.campaign.sharing import share
from engine.campaign.votes import NO_TIME, files_of_votes, ingest_numbers, micros_of, times_of
from engine.errors import InputError
from engine.storage.location import Location
from engine.tables.columns import required
from engine.tables.item_keys import ItemKeys

CONSENSUS_SCHEMA = pa.schema(
    [
        *required(pa.string(), "item_id", "shard", "key", "state"),
        pa.field("label", pa.string()),
        pa.field("posterior", pa.float64()),
        *required(pa.int64(), "num_votes", "num_skipped"),
    ]
)
"""The outcome of every image that has votes. The metadata say from which votes and options it follows."""


class Changes(NamedTuple):
    """N images with another label: their places in the ledger's items, shard and key, and the label before and now,
    null for none."""

    places: Counts
    items: pa.Table
    before: pa.Array
    now: pa.Array

    @property
    def by_item(self) -> dict[Identity, tuple[str | None, str | None]]:
        """The label before and now of each: a Python object each, for few."""
        pairs = zip(self.before.to_pylist(), self.now.to_pylist(), strict=True)
        return dict(zip(identities(self.items), pairs, strict=True))


class Settled(NamedTuple):
    """What settling changed; whether the round ended with it; and the ledger."""

    changes: Changes
    is_closed: bool
    ledger: Ledger


def settle(campaign: Campaign, forced: frozenset[str] = frozenset(), before: SentAndSaid | None = None) -> Settled:
    """Derive labels from the votes, and end the round where labels.close_when says so.

    It follows from what is committed alone: whatever was interrupted is completed by the next call. What is out and
    labelled is written into pool.shared_ledger, if there is one.

    Args:
        forced: item_ids whose votes stand over what a person said before they came.
        before: what was read before the votes came, if it was.
    """
    known = _read(campaign, before)
    del before
    ledger = read_ledger(campaign, known=known)
    _write_consensus(campaign, ledger, known.words)
    changes = _write_labels(campaign, ledger, known.words, forced)
    if len(changes.places):
        outcomes = ledger.outcomes
        # What is read again is not kept twice.
        del ledger
        known = _read(campaign, known)
        ledger = read_ledger(campaign, known=known, outcomes=outcomes)
    del known
    share(campaign, ledger)
    return Settled(changes, _close_if_due(campaign, ledger), ledger)


def _read(campaign: Campaign, before: SentAndSaid | None) -> SentAndSaid:
    """What was sent and said. What was read before is not read again, unless somebody wrote labels meanwhile."""
    folder = campaign.home / "labels"
    if before and before.words.files == {f"labels/{name}": _sha256(folder / name) for name in folder.children()}:
        return before
    sent = before and before.sent
    del before
    return SentAndSaid.of(campaign, sent=sent)


def _sha256(file: Location) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _write_consensus(campaign: Campaign, ledger: Ledger, words: Words) -> None:
    """Keep this version of the outcomes, if the newest one is another."""
    outcomes, folder, labels = ledger.outcomes, campaign.home / "consensus", campaign.config.labels
    has_votes = outcomes.values_K + outcomes.skips_K > 0
    places, mask = outcomes.place_K[has_votes], pa.array(has_votes)
    if not len(places):
        return
    items = ledger.items.rows(places, ["item_id", "shard", "key"])
    columns = {
        "state": pa.array(STATES, pa.string()).take(pa.array(ledger.state_U[places])),
        "label": outcomes.labels.filter(mask),
        "posterior": pa.array(outcomes.posterior_K[has_votes], from_pandas=True),
        "num_votes": pa.array(outcomes.values_K[has_votes]),
        "num_skipped": pa.array(outcomes.skips_K[has_votes]),
    }
    for name, column in columns.items():
        items = items.append_column(name, column)
    ingests = "\n".join(pc.unique(outcomes.votes["ingest"]).to_pylist())
    facts = {"method": labels.consensus, "min_posterior": str(labels.min_posterior), "ingests": ingests}
    facts["labels"] = hashlib.sha256("\n".join(sorted(words.files.values())).encode()).hexdigest()
    table = items.cast(CONSENSUS_SCHEMA).replace_schema_metadata(facts)
    names = list(folder.children())
    # A damaged version must not keep answers out: all of it is derived, and is written again.
    with suppress(InputError):
        if names and (folder / names[-1]).read_table().equals(table):
            return
    (folder / f"{len(names) + 1:06d}.parquet").write_table(table)


def _write_labels(campaign: Campaign, ledger: Ledger, words: Words, forced: frozenset[str]) -> Changes:
    """Append the labels that the votes give and the campaign does not have. Returns what changed."""
    items, outcomes = ledger.items, ledger.outcomes
    has_votes = (outcomes.values_K + outcomes.skips_K > 0) & (outcomes.place_K < items.num_picked)
    places, labels = outcomes.place_K[has_votes], outcomes.labels.filter(pa.array(has_votes))
    before = words.labels_at(places)
    now = pc.if_else(pa.array(ledger.by_votes_U[places] == SETTLED), labels, pa.scalar(None, pa.string()))
    is_other = pc.not_equal(pc.fill_null(now, ""), pc.fill_null(before, "")).to_numpy(zero_copy_only=False)
    is_forced_U = np.zeros(len(items), bool)
    named = items.places_of(pa.array(sorted(forced), pa.string()))
    is_forced_U[named[named >= 0]] = True
    items.spread(is_forced_U)
    is_forced = is_forced_U[places] & (_newest_ingests(outcomes)[has_votes] > ledger.word_votes_U[places])
    is_gone_U = items.are_in(ItemKeys.of_items(sorted(forgotten(campaign.home))))
    is_wanted = is_other & ~is_gone_U[places] & (~ledger.stands_U[places] | is_forced)
    mask, places = pa.array(is_wanted), places[is_wanted]
    wanted = items.rows(places, [*POSITIONS_SCHEMA.names, "round"])
    changes = Changes(places, wanted.select(["shard", "key"]), before.filter(mask), now.filter(mask))
    if len(places):
        latest = _latest(outcomes, places)
        origins = pa.nulls(len(places), pa.string())
        # Where a selection is damaged the origin is null, and is looked up when it is needed.
        with suppress(InputError):
            origins = origins_among(campaign.home, pc.unique(wanted["round"]).to_pylist(), ItemKeys.of(wanted))
        why = pc.if_else(pa.array(is_forced[is_wanted]), pa.scalar(REPLACED), pa.scalar(None, pa.string()))
        columns = [wanted["shard"], wanted["key"], changes.now, wanted["round"], *latest, origins, why]
        # The positions of picks are known: training need not scan their shards.
        write_positions(campaign.home, wanted.select(POSITIONS_SCHEMA.names))
        table = pa.table(columns, schema=LABELS_SCHEMA)
        name = f"labels/{append_labels(campaign.home, INGEST, table)}"
        # Else all label files are read again.
        if items.are_single(ItemKeys.of(wanted)):
            words.add(name, _sha256(campaign.home / name), len(files_of_votes(campaign.home)), table, places)
    return changes


def _newest_ingests(outcomes: Outcomes) -> NDArray[np.int64]:
    """The number of the newest ingest with a vote on each of the K images, 0 without a vote."""
    newest_K = np.zeros(len(outcomes.place_K), np.int64)
    np.maximum.at(newest_K, outcomes.numbers_of(outcomes.item_V), ingest_numbers(outcomes.votes))
    return newest_K


def _latest(outcomes: Outcomes, places: Counts) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Of the votes on each image at these places, which ascend (N,): the vendor of the newest one, its annotator
    where it is the only one, and the time of the last one; now, where none has any."""
    number_V = np.searchsorted(places, outcomes.item_V)
    is_own_V = np.append(places, -1)[number_V] == outcomes.item_V
    votes = outcomes.votes.select(["ingest", "vendor", "annotator", "answered_at"]).filter(pa.array(is_own_V))
    number_V = number_V[is_own_V]
    order = np.lexsort((np.arange(len(votes)), ingest_numbers(votes), number_V))
    last_N = order[np.append(np.diff(number_V[order]) > 0, True)[: len(order)]]
    at_N = np.full(len(places), NO_TIME)
    np.maximum.at(at_N, number_V, times_of(votes))
    at_N[at_N == NO_TIME] = micros_of(datetime.now(UTC))
    newest = votes.select(["vendor", "annotator"]).take(pa.array(last_N))
    is_only = pa.array(np.bincount(number_V, minlength=len(places)) == 1)
    annotator = pc.if_else(is_only, newest["annotator"], pa.scalar(None, pa.string()))
    return newest["vendor"], annotator, pa.array(at_N, LABELS_SCHEMA.field("labelled_at").type)


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
    is_own_R = np.zeros(len(ledger.item_R), bool)
    for number in numbers:
        is_own_R |= ledger.images_of(number)
    # An image that was taken back and sent again is there twice, and counts once.
    state_U = np.full(len(ledger.items), -1, np.int8)
    # Of several rows the last one stays.
    state_U[ledger.item_R[is_own_R]] = ledger.state_R[is_own_R]
    is_again_U, items = np.zeros(len(state_U), bool), np.flatnonzero(state_U >= 0)
    is_done = np.isin(state_U[items], DONE)
    is_answered = ~np.isin(state_U[items], (OUT, GIVEN_UP, TAKEN_BACK))
    if numbers and is_complete(campaign.stage("selection")):
        # What is in its shard no more cannot be sent.
        waiting = placed(campaign.home, waiting_picks(campaign.home, campaign.round))[0]["item_id"].combine_chunks()
        num_waiting, places = len(waiting), ledger.items.places_of(waiting)
        is_again_U[places[places >= 0]] = True
    else:
        num_waiting = ledger.batches[numbers[-1]].manifest["sending"]["waiting"] if numbers else 0
    is_again = is_again_U[items]
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
