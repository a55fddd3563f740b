"""The ledger: every image that ever left, and what came of it.

All of it follows from records that are only added to: batches (handed_out/), votes/, labels/ and decisions/.
"""

from collections import Counter
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.decisions import EXPIRED, RECALLED, decided, never_picked, read_decisions
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import IMAGES_SCHEMA, SentBatch
from engine.campaign.known_images import Images, Numbers, Sent, read_sent
from engine.campaign.labels import Snapshot, read_snapshot
from engine.campaign.last_words import Words, words_of
from engine.campaign.outcomes import Counts, Outcomes, Truths, outcomes_of
from engine.campaign.payments import payments
from engine.campaign.votes import read_votes
from engine.cluster.allocation import give_back_freed_memory
from engine.errors import ConfigError
from engine.storage.location import Location
from engine.tables.item_keys import ItemKeys

STATES = ("out", "answered in part", "settled", "disputed", "skipped", EXPIRED, RECALLED, "retracted")
"""What an image that was sent can be. Retracted: a person took its label away."""
OUT, IN_PART, SETTLED, DISPUTED, SKIPPED, GIVEN_UP, TAKEN_BACK, RETRACTED = range(len(STATES))
DONE = (SETTLED, SKIPPED, GIVEN_UP, TAKEN_BACK, RETRACTED)
"""The states in which nobody waits for an answer any more."""
TIE = 1e-9
"""Probabilities are sums: what is as probable as labels.min_posterior may be less by this."""
NO_REASON = "no reason"
WORD_COLUMNS = ["shard", "key", "label", "round", "labelled_at", "why"]
"""The columns of labels that a ledger follows from."""


class Ledger(NamedTuple):
    """R images in batches, in the order of sending, and U different ones, which may also be picks that were never sent.

    `sent` are the batches; `gold_R` says which rows are gold, and `item_R` is the place of each one's image in `items`.
    `state_R` is in STATES; `back_R` is TAKEN_BACK
    or GIVEN_UP for a row that was, else 0; `paid_R` is how many of the answers that were asked for came.
    `state_U` are the states of the images; `by_votes_U` what the votes alone say; `stands_U` says where a person's or
    another program's word stands over votes, and `word_votes_U` how many files of votes there were when it was said;
    `came_U` is how many answers came, and `labelled_U` says which have a label now.
    """

    sent: Sent
    gold_R: NDArray[np.bool_]
    item_R: Numbers
    state_R: NDArray[np.int8]
    back_R: NDArray[np.int8]
    paid_R: Numbers
    state_U: NDArray[np.int8]
    by_votes_U: NDArray[np.int8]
    stands_U: NDArray[np.bool_]
    word_votes_U: Numbers
    came_U: Numbers
    labelled_U: NDArray[np.bool_]
    outcomes: Outcomes

    @property
    def batches(self) -> list[SentBatch]:
        """Oldest first."""
        return self.sent.batches

    @property
    def items(self) -> Images:
        """The different images."""
        return self.sent.images

    def rows(self, columns: list[str], is_asked_R: NDArray[np.bool_] | None = None) -> pa.Table:
        """These rows, or all, with these columns of IMAGES_SCHEMA: read again, one batch after another."""
        schema = pa.schema([IMAGES_SCHEMA.field(name) for name in columns])
        tables = [schema.empty_table()]
        for number, batch in enumerate(self.batches):
            own = None if is_asked_R is None else is_asked_R[self.sent.slice_of(number)]
            if own is None or own.any():
                table = batch.rows(columns).select(columns).cast(schema)
                tables.append(table if own is None else table.filter(pa.array(own)))
        return pa.concat_tables(tables)

    @property
    def prices(self) -> list[Decimal]:
        """The price of one answer in each batch."""
        return [Decimal(str(batch.manifest["sending"]["price"])) for batch in self.batches]

    def spent(self, number: int) -> Decimal:
        """The price of the answers of a batch that came."""
        return self.prices[number] * int(self.paid_R[self.sent.slice_of(number)].sum())

    def reserved(self, number: int) -> Decimal:
        """The price of the answers of a batch that may still come."""
        own = self.sent.slice_of(number)
        is_open = np.isin(self.state_R[own], (OUT, IN_PART))
        return self.prices[number] * int((self.sent.asked(number) - self.paid_R[own][is_open].astype(np.int64)).sum())

    @property
    def spend(self) -> Decimal:
        """All that was spent and is reserved."""
        numbers = range(len(self.batches))
        return sum((self.spent(number) + self.reserved(number) for number in numbers), Decimal(0))

    @property
    def waited_for(self) -> NDArray[np.bool_]:
        """Which rows (R,) answers are missing of. Of an image that was disputed and sent again, that is the newer
        one."""
        found = [self.waited_for_of(number) for number in range(len(self.batches))]
        return np.concatenate([np.empty(0, bool), *found])

    def waited_for_of(self, number: int) -> NDArray[np.bool_]:
        """As `waited_for`, of the rows of a batch."""
        is_open = np.isin(self.state_R[self.sent.slice_of(number)], (OUT, IN_PART))
        is_lacking: NDArray[np.bool_] = is_open & (self._came_since(number) < self.sent.asked(number))
        return is_lacking

    def _came_since(self, number: int) -> Numbers:
        """How many answers came since a batch was sent, for each of its rows."""
        own = self.sent.slice_of(number)
        came: Numbers = self.came_U[self.item_R[own]] - self.sent.answered(own)
        return came

    def of_round(self, number: int) -> list[int]:
        """The places of a round's batches, oldest first."""
        return [place for place, batch in enumerate(self.batches) if batch.manifest["round"] == number]

    def images_of(self, number: int) -> NDArray[np.bool_]:
        """Which rows (R,) are the images of a batch, without the gold ones."""
        is_image_R, own = np.zeros(len(self.gold_R), bool), self.sent.slice_of(number)
        is_image_R[own] = ~self.gold_R[own]
        return is_image_R

    @property
    def disputed(self) -> Counts:
        """The places in `items` of the disputed images, the least certain first, without the gold ones."""
        places = np.flatnonzero(self.state_U[: self.items.num_picked] == DISPUTED)
        return places[np.argsort(np.nan_to_num(self.outcomes.posteriors_at(places)), kind="stable")]

    def counts(self, number: int) -> dict[str, int]:
        """How many images of a batch are in each state; gold ones are not counted. Of an image that was disputed and
        sent again, the first batch has all its answers, and the other none until one comes."""
        own = self.sent.slice_of(number)
        states, came = self.state_R[own], self._came_since(number)
        cases = [(states == IN_PART) & (came >= self.sent.asked(number)), (states == IN_PART) & (came <= 0)]
        states = np.select(cases, [np.int8(DISPUTED), np.int8(OUT)], states)
        found = np.bincount(states[~self.gold_R[own]], minlength=len(STATES)).tolist()
        return {state: count for state, count in zip(STATES, found, strict=True) if count}

    @property
    def skip_reasons(self) -> dict[str, int]:
        """How many images are skipped for each reason, the most frequent first. An image has the reason that most of
        its annotators gave, of several the first by the alphabet."""
        outcomes, is_skipped_U = self.outcomes, (self.state_U == SKIPPED) & ~self.items.are_gold
        is_own_V = outcomes.votes["skipped"].to_numpy() & is_skipped_U[outcomes.item_V]
        reasons = pc.fill_null(outcomes.votes["reason"].filter(pa.array(is_own_V)), NO_REASON).to_pylist()
        given: dict[int, Counter[str]] = {}
        for place, reason in zip(outcomes.item_V[is_own_V].tolist(), reasons, strict=True):
            given.setdefault(place, Counter())[reason] += 1
        found = Counter(min(counts, key=lambda name: (-counts[name], name)) for counts in given.values())
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


class SentAndSaid(NamedTuple):
    """What was sent, and what label files say of it."""

    sent: Sent
    words: Words

    @staticmethod
    def of(campaign: Campaign, snapshot: Snapshot | None = None, sent: Sent | None = None) -> "SentAndSaid":
        """As it is now; the labels, and `sent`, if they are read already."""
        sent = sent or read_sent(campaign)
        found = SentAndSaid(sent, words_of(snapshot or read_snapshot(campaign.home, WORD_COLUMNS), sent.images))
        give_back_freed_memory()
        return found


def read_ledger(
    campaign: Campaign, snapshot: Snapshot | None = None, *, known: SentAndSaid | None = None,
    outcomes: Outcomes | None = None,
) -> Ledger:  # fmt: skip
    """The ledger as it is now. What is read already may be given: `snapshot` are the labels, or `known` what was sent
    and what these labels say, and `outcomes` those of the votes that are there, for the same images."""
    home = campaign.home
    sent, words = known or SentAndSaid.of(campaign, snapshot)
    images = sent.images
    truths = _truths(images, words)
    if outcomes is None or not outcomes.truths.equals(truths):
        votes, undone, config = read_votes(home), words.undone_votes, campaign.config
        try:
            outcomes = outcomes_of(images, truths, votes, undone, config.handoff.question.task, config.labels.consensus)
        except ValueError as error:
            raise ConfigError(f"labels.consensus={config.labels.consensus}: {error}") from error
        del votes
    back_R = _taken_back(home, sent)
    came_K, live_K, paid_R = _answered(sent, outcomes, back_R)
    by_votes_U, came_U = np.full(len(images), OUT, np.int8), np.zeros(len(images), np.int32)
    came_U[outcomes.place_K] = came_K
    by_votes_U[outcomes.place_K] = _by_votes(outcomes, came_K, live_K, campaign.config.labels.min_posterior)
    state_U, stands_U, word_votes_U = _with_words(sent, words, by_votes_U)
    # What is never to be picked is not asked about again.
    if never := never_picked(home):
        state_U[(state_U == DISPUTED) & images.are_in(ItemKeys.of_items(sorted(never)))] = RETRACTED
    state_R = state_U[sent.item_R]
    is_back_R = (back_R > 0) & ((state_R == OUT) | (state_R == IN_PART))
    state_R[is_back_R] = back_R[is_back_R]
    return Ledger(
        sent, sent.gold_R, sent.item_R, state_R, back_R, paid_R, state_U, by_votes_U, stands_U, word_votes_U, came_U,
        words.are_labels(), outcomes,
    )  # fmt: skip


def _truths(images: Images, words: Words) -> Truths:
    """The label of each gold image that has one."""
    place_T = np.arange(images.num_picked, len(images))
    label_T = words.labels_at(place_T)
    return Truths(place_T[label_T.is_valid().to_numpy(zero_copy_only=False)], label_T.drop_null())


def _taken_back(home: Location, sent: Sent) -> NDArray[np.int8]:
    """GIVEN_UP or TAKEN_BACK for the rows that were expired or recalled, else 0."""
    codes = {EXPIRED: GIVEN_UP, RECALLED: TAKEN_BACK}
    decisions = decided(read_decisions(home), *codes)
    found: NDArray[np.int8] = np.zeros(len(sent.item_R), np.int8)
    for number, batch in enumerate(sent.batches) if len(decisions) else ():
        own = decisions.filter(pc.equal(decisions["batch"], batch.record))
        if len(own):
            code_N = np.array([codes[kind] for kind in own["kind"].to_pylist()], np.int8)
            place = pc.index_in(batch.rows(["item_id"])["item_id"], value_set=own["item_id"])
            found[sent.slice_of(number)][place.is_valid().to_numpy()] = code_N[place.drop_null().to_numpy()]
    return found


def _answered(sent: Sent, outcomes: Outcomes, back_R: NDArray[np.int8]) -> tuple[Counts, Counts, Numbers]:
    """Of the K images with answers how many came, and after how many nothing is asked any more (K,); and for how many
    each row pays (R,)."""
    is_one_U, size = np.zeros(outcomes.size, bool), len(outcomes.place_K)
    is_one_U[outcomes.place_K] = True
    row_P = np.flatnonzero(is_one_U[sent.item_R])
    item_P, batch_P = outcomes.numbers_of(sent.item_R[row_P]), sent.batches_of(row_P)
    asked_P = np.array([sent.asked(number) for number in range(len(sent.batches))], np.int64)[batch_P]
    live_K = np.zeros(size, np.int64)
    np.maximum.at(live_K, item_P, (sent.answered(row_P) + asked_P) * (back_R[row_P] == 0))
    # What was picked and never sent may be answered all the same: one answer settles it.
    live_K[np.bincount(item_P, minlength=size) == 0] = 1
    came_K, paid_P = payments(outcomes.answers, size, sent.batches, batch_P, item_P, asked_P)
    paid_R = np.zeros(len(sent.item_R), np.int32)
    paid_R[row_P] = paid_P
    return came_K, live_K, paid_R


def _by_votes(outcomes: Outcomes, came_K: Counts, live_K: Counts, least: float) -> NDArray[np.int8]:
    """The state of each of the K images by its votes; `came_K` is how many answers came, and `live_K` after how many
    of them nothing is asked any more."""
    # nan is not certain.
    is_certain_K = (outcomes.posterior_K >= least - TIE) & (outcomes.values_K > outcomes.skips_K)
    is_without_K = outcomes.values_K + outcomes.skips_K == 0
    conditions = [is_without_K, came_K < live_K, outcomes.skips_K > outcomes.values_K, is_certain_K]
    return np.select(conditions, [OUT, IN_PART, SKIPPED, SETTLED], DISPUTED).astype(np.int8)


def _with_words(
    sent: Sent, words: Words, by_votes_U: NDArray[np.int8]
) -> tuple[NDArray[np.int8], NDArray[np.bool_], Numbers]:
    """The state of each image by votes and words, where a word stands over votes, and how many files of votes there
    were then.

    A label was taken away from an image as it was then: what was sent later to be labelled again, is.
    """
    state_U, size = by_votes_U.copy(), len(by_votes_U)
    stands_U, word_votes_U = np.zeros(size, bool), np.zeros(size, np.int32)
    at_T, last_U = sent.last_times()
    for said, (is_derived, has_label, at, num_votes) in words.parts():
        stands = ~is_derived & (has_label | (at >= at_T[last_U[said]]))
        # A label of an ingest without votes is one that another program derived.
        state_U[said[has_label & (stands | (by_votes_U[said] == OUT))]] = SETTLED
        state_U[said[~has_label & stands]] = RETRACTED
        stands_U[said], word_votes_U[said] = stands, num_votes
    return state_U, stands_U, word_votes_U
