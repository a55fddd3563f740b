"""The ledger: every image that ever left, and what came of it.

All of it follows from records that are only added to: batches (handed_out/), votes/, labels/ and decisions/.
"""

from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.decisions import EXPIRED, RECALLED, decided, never_picked, read_decisions
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import IMAGES_SCHEMA, SentBatch, all_batches, picked_items
from engine.campaign.labels import Snapshot, read_snapshot
from engine.campaign.outcomes import Counts, Outcomes, outcomes_of
from engine.campaign.payments import payments
from engine.campaign.votes import read_votes
from engine.errors import ConfigError
from engine.storage.location import Location
from engine.tables.item_keys import ItemIndex, ItemKeys, column_at

STATES = ("out", "answered in part", "settled", "disputed", "skipped", EXPIRED, RECALLED, "retracted")
"""What an image that was sent can be. Retracted: a person took its label away."""
OUT, IN_PART, SETTLED, DISPUTED, SKIPPED, GIVEN_UP, TAKEN_BACK, RETRACTED = range(len(STATES))
DONE = (SETTLED, SKIPPED, GIVEN_UP, TAKEN_BACK, RETRACTED)
"""The states in which nobody waits for an answer any more."""
TIE = 1e-9
"""Probabilities are sums: what is as probable as labels.min_posterior may be less by this."""
NO_REASON = "no reason"
ROWS_SCHEMA = pa.schema(field for field in IMAGES_SCHEMA if field.name not in ("rank", "file", "sha256", "sent_bytes"))
"""IMAGES_SCHEMA without what only an export needs, which is half of it."""
_OF_WORDS = ["label", "labelled_at", "is_derived", "num_votes"]
"""The columns of labels that decide what an image that was sent is now."""


class Ledger(NamedTuple):
    """R images in batches, in the order of sending, and U different ones.

    `gold_R` says which are gold, and `answered_R` how many answers had come before each was sent; `batch_R` is the
    place of each one's batch in `batches`, `item_R` its place in `outcomes.item_ids`, `state_R` in STATES; `back_R`
    is TAKEN_BACK or GIVEN_UP for a row that was, else 0; `asked_R` is how many answers were asked for, `paid_R` how
    many of them came. `items` has a row for each different image, which may also be a pick that was never sent:
    item_id, shard, key, offset, size_bytes, content_hash, round, gold.
    `state_U` are their states; `by_votes_U` what the votes alone say; `stands_U` says where a person's or another
    program's word stands over votes, and `word_votes_U` how many files of votes there were when it was said; `came_U`
    is how many answers came.
    """

    batches: list[SentBatch]
    gold_R: NDArray[np.bool_]
    answered_R: Counts
    batch_R: Counts
    item_R: Counts
    state_R: NDArray[np.int8]
    back_R: NDArray[np.int8]
    asked_R: Counts
    paid_R: Counts
    items: pa.Table
    state_U: NDArray[np.int8]
    by_votes_U: NDArray[np.int8]
    stands_U: NDArray[np.bool_]
    word_votes_U: Counts
    came_U: Counts
    outcomes: Outcomes

    @property
    def rows(self) -> pa.Table:
        """ROWS_SCHEMA (R,), read again at each call: of millions of images, texts take ten times what is held here."""
        return pa.concat_tables([ROWS_SCHEMA.empty_table(), *(b.rows(ROWS_SCHEMA.names) for b in self.batches)])

    @property
    def prices(self) -> list[Decimal]:
        """The price of one answer in each batch."""
        return [Decimal(str(batch.manifest["sending"]["price"])) for batch in self.batches]

    def spent(self, number: int) -> Decimal:
        """The price of the answers of a batch that came."""
        return self.prices[number] * int(self.paid_R[self.batch_R == number].sum())

    def reserved(self, number: int) -> Decimal:
        """The price of the answers of a batch that may still come."""
        is_open = (self.batch_R == number) & np.isin(self.state_R, (OUT, IN_PART))
        return self.prices[number] * int((self.asked_R - self.paid_R)[is_open].sum())

    @property
    def spend(self) -> Decimal:
        """All that was spent and is reserved."""
        numbers = range(len(self.batches))
        return sum((self.spent(number) + self.reserved(number) for number in numbers), Decimal(0))

    @property
    def came_since(self) -> Counts:
        """How many answers came since each row was sent."""
        came_R: Counts = self.came_U[self.item_R] - self.answered_R
        return came_R

    @property
    def waited_for(self) -> NDArray[np.bool_]:
        """Which rows answers are missing of. Of an image that was disputed and sent again, that is the newer one."""
        is_open_R: NDArray[np.bool_] = np.isin(self.state_R, (OUT, IN_PART)) & (self.came_since < self.asked_R)
        return is_open_R

    def of_round(self, number: int) -> list[int]:
        """The places of a round's batches, oldest first."""
        return [place for place, batch in enumerate(self.batches) if batch.manifest["round"] == number]

    def images_of(self, number: int) -> NDArray[np.bool_]:
        """Which rows (R,) are the images of a batch, without the gold ones."""
        is_image_R: NDArray[np.bool_] = (self.batch_R == number) & ~self.gold_R
        return is_image_R

    @property
    def disputed(self) -> Counts:
        """The places in `items` of the disputed images, the least certain first, without the gold ones."""
        places = np.flatnonzero((self.state_U == DISPUTED) & ~self.items["gold"].to_numpy())
        return places[np.argsort(np.nan_to_num(self.outcomes.posterior_U[places]), kind="stable")]

    def counts(self, number: int) -> dict[str, int]:
        """How many images of a batch are in each state; gold ones are not counted. Of an image that was disputed and
        sent again, the first batch has all its answers, and the other none until one comes."""
        is_part_R, came_R = self.state_R == IN_PART, self.came_since
        cases = [is_part_R & (came_R >= self.asked_R), is_part_R & (came_R <= 0)]
        states_R = np.select(cases, [DISPUTED, OUT], self.state_R)
        found = np.bincount(states_R[self.images_of(number)], minlength=len(STATES)).tolist()
        return {state: count for state, count in zip(STATES, found, strict=True) if count}

    @property
    def skip_reasons(self) -> dict[str, int]:
        """How many images are skipped for each reason, the most frequent first. An image has the reason that most of
        its annotators gave, of several the first by the alphabet."""
        outcomes, is_skipped_U = self.outcomes, (self.state_U == SKIPPED) & ~self.items["gold"].to_numpy()
        is_own_V = outcomes.votes["skipped"].to_numpy() & is_skipped_U[outcomes.item_V]
        reasons = pc.fill_null(outcomes.votes["reason"].filter(pa.array(is_own_V)), NO_REASON).to_pylist()
        given: dict[int, Counter[str]] = {}
        for place, reason in zip(outcomes.item_V[is_own_V].tolist(), reasons, strict=True):
            given.setdefault(place, Counter())[reason] += 1
        found = Counter(min(counts, key=lambda name: (-counts[name], name)) for counts in given.values())
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def read_ledger(campaign: Campaign, snapshot: Snapshot | None = None, *, outcomes: Outcomes | None = None) -> Ledger:
    """The ledger as it is now; `snapshot` are the labels, if they are read already, `outcomes` those of the votes that
    are there."""
    home, snapshot = campaign.home, snapshot or read_snapshot(campaign.home)
    batches = all_batches(home, campaign.round + 1)
    keys_R, gold_R, answered_R, batch_R = _rows_of(batches)
    items = _items(campaign, batches, set(batch_R[gold_R].tolist()))
    item_R = ItemIndex(ItemKeys.of_texts(items["item_id"])).rows_of(keys_R)
    del keys_R
    ids = items["item_id"].combine_chunks()
    truths = _truths(items, snapshot)
    if not (outcomes and outcomes.item_ids.equals(ids) and outcomes.truths.equals(truths)):
        votes, undone, config = read_votes(home), snapshot.undone_votes, campaign.config
        try:
            outcomes = outcomes_of(ids, truths, votes, undone, config.handoff.question.task, config.labels.consensus)
        except ValueError as error:
            raise ConfigError(f"labels.consensus={config.labels.consensus}: {error}") from error
    asked_R = np.array([batch.manifest["sending"]["annotators"] for batch in batches], np.int64)[batch_R]
    back_R = _taken_back(home, batches, batch_R)
    live_U = np.zeros(len(ids), np.int64)
    np.maximum.at(live_U, item_R, (answered_R + asked_R) * (back_R == 0))
    # What was picked and never sent may be answered all the same: one answer settles it.
    live_U[np.bincount(item_R, minlength=len(ids)) == 0] = 1
    came_U, paid_R = payments(outcomes.answers, len(ids), batches, batch_R, item_R, asked_R)
    by_votes_U = _by_votes(outcomes, came_U, live_U, campaign.config.labels.min_posterior)
    state_U, stands_U, word_votes_U = _with_words(
        items, snapshot, by_votes_U, _sent_at(batches, item_R, batch_R, len(ids))
    )
    # What is never to be picked is not asked about again.
    never = never_picked(home)
    is_never_U = ItemIndex(ItemKeys.of_items(sorted(never))).holds(ItemKeys.of(items)) if never else np.bool_(False)
    state_U = np.where((state_U == DISPUTED) & is_never_U, RETRACTED, state_U).astype(np.int8)
    state_R = np.where((back_R > 0) & np.isin(state_U[item_R], (OUT, IN_PART)), back_R, state_U[item_R])
    return Ledger(
        batches,
        gold_R,
        answered_R,
        batch_R,
        item_R,
        state_R,
        back_R,
        asked_R,
        paid_R,
        items,
        state_U,
        by_votes_U,
        stands_U,
        word_votes_U,
        came_U,
        outcomes,
    )


def _rows_of(batches: list[SentBatch]) -> tuple[ItemKeys, NDArray[np.bool_], Counts, Counts]:
    """Of all rows of the batches the keys of their names for vendors, which are gold, how many answers had come before,
    and the places of their batches."""
    keys, gold, answered = [ItemKeys.of_items([])], [np.empty(0, bool)], [np.empty(0, np.int64)]
    for batch in batches:
        table = batch.rows(["item_id", "gold", "answered"])
        keys.append(ItemKeys.of_texts(table["item_id"]))
        gold.append(table["gold"].to_numpy())
        answered.append(pc.fill_null(table["answered"], 0).to_numpy())
    batch_R = np.repeat(np.arange(len(batches)), [len(found) for found in gold[1:]])
    high_R, low_R = (np.concatenate(lanes) for lanes in zip(*((k.high_N, k.low_N) for k in keys), strict=True))
    return ItemKeys(high_R, low_R), np.concatenate(gold), np.concatenate(answered), batch_R


def _items(campaign: Campaign, batches: list[SentBatch], with_gold: set[int]) -> pa.Table:
    """Every image that an answer may be for, each once: the picks, and gold images under their names for vendors, which
    these batches have."""
    picked = picked_items(campaign.home, campaign.round + 1, with_released=True)
    gold = []
    for number in sorted(with_gold):
        table, of_round = batches[number].rows([*picked.column_names[:-1], "gold"]), batches[number].manifest["round"]
        table = table.filter(table["gold"]).drop_columns("gold")
        gold.append(table.append_column("round", pa.array([of_round] * len(table), pa.int32())))
    found = pa.concat_tables([picked, *gold])
    return found.append_column("gold", pa.array(np.arange(len(found)) >= len(picked)))


def _truths(items: pa.Table, snapshot: Snapshot) -> pa.Array:
    """The label of each gold image, null for the others."""
    is_gold_U = items["gold"].to_numpy()
    row_U = np.full(len(items), -1)
    if is_gold_U.any():
        labels = snapshot.labels
        row_U[is_gold_U] = ItemIndex(ItemKeys.of(labels)).rows_of(ItemKeys.of(items.filter(pa.array(is_gold_U))))
        return column_at(labels["label"], row_U)
    return pa.nulls(len(items), pa.string())


def _taken_back(home: Location, batches: list[SentBatch], batch_R: Counts) -> NDArray[np.int8]:
    """GIVEN_UP or TAKEN_BACK for the rows that were expired or recalled, else 0."""
    codes = {EXPIRED: GIVEN_UP, RECALLED: TAKEN_BACK}
    decisions = decided(read_decisions(home), *codes)
    found: NDArray[np.int8] = np.zeros(len(batch_R), np.int8)
    for number, batch in enumerate(batches):
        own = decisions.filter(pc.equal(decisions["batch"], batch.record))
        if len(own):
            code_N = np.array([codes[kind] for kind in own["kind"].to_pylist()], np.int8)
            place = pc.index_in(batch.rows(["item_id"])["item_id"], value_set=own["item_id"])
            is_back = place.is_valid().to_numpy()
            found[np.flatnonzero(batch_R == number)[is_back]] = code_N[place.drop_null().to_numpy()]
    return found


def _by_votes(outcomes: Outcomes, came_U: Counts, live_U: Counts, least: float) -> NDArray[np.int8]:
    """The state of each image by its votes; `came_U` is how many answers came, and `live_U` after how many
    of them nothing is asked any more."""
    votes_U = outcomes.num_votes
    is_complete_U = came_U >= live_U
    # nan is not certain.
    is_certain_U = (outcomes.posterior_U >= least - TIE) & (outcomes.values_U > outcomes.skips_U)
    conditions = [votes_U == 0, ~is_complete_U, outcomes.skips_U > outcomes.values_U, is_certain_U]
    return np.select(conditions, [OUT, IN_PART, SKIPPED, SETTLED], DISPUTED).astype(np.int8)


def _sent_at(batches: list[SentBatch], item_R: Counts, batch_R: Counts, size: int) -> NDArray[np.int64]:
    """When each image was sent last (U,), microseconds since 1970; 0 where it never was."""
    at = [datetime.fromisoformat(batch.manifest["completed_at"]).timestamp() * 1e6 for batch in batches]
    sent_U = np.zeros(size, np.int64)
    np.maximum.at(sent_U, item_R, np.array(at, np.int64)[batch_R])
    return sent_U


def _with_words(
    items: pa.Table, snapshot: Snapshot, by_votes_U: NDArray[np.int8], sent_at_U: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.bool_], Counts]:
    """The state of each image by votes and words, where a word stands over votes, and how many files of votes there
    were then.

    A label was taken away from an image as it was then: what was sent later to be labelled again, is.
    """
    words, state_U = snapshot.last_words(), by_votes_U.copy()
    row_U = ItemIndex(ItemKeys.of(words)).rows_of(ItemKeys.of(items))
    said_U = np.flatnonzero((row_U >= 0) & ~items["gold"].to_numpy())
    # A row takes less where its texts are not taken along.
    word = words.select(_OF_WORDS).take(pa.array(row_U[said_U]))
    is_derived, has_label = word["is_derived"].to_numpy(), word["label"].is_valid().to_numpy()
    at = pc.fill_null(word["labelled_at"].cast(pa.int64()), np.iinfo(np.int64).max).to_numpy()
    stands = ~is_derived & (has_label | (at >= sent_at_U[said_U]))
    # A label of an ingest without votes is one that another program derived.
    state_U[said_U[has_label & (stands | (by_votes_U[said_U] == OUT))]] = SETTLED
    state_U[said_U[~has_label & stands]] = RETRACTED
    stands_U = np.zeros(len(items), bool)
    stands_U[said_U] = stands
    word_votes_U = np.zeros(len(items), np.int64)
    word_votes_U[said_U] = word["num_votes"].to_numpy()
    return state_U, stands_U, word_votes_U
