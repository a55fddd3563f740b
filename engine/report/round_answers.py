"""What came back of the images that a round sent: the ledger as it is now, of this round's batches alone.

Shape suffixes: U images of the ledger, V votes, R rows of batches.
"""

import json
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.campaign.labels import Snapshot, read_snapshot
from engine.campaign.ledger import (
    DISPUTED,
    GIVEN_UP,
    IN_PART,
    NO_REASON,
    OUT,
    RETRACTED,
    SETTLED,
    SKIPPED,
    STATES,
    TAKEN_BACK,
    Ledger,
    read_ledger,
)
from engine.campaign.outcomes import Counts
from engine.tables.rows import Row
from engine.tables.selections import ORIGIN_CONTROL

MOST_REASONS = 12
"""Reasons for skipping that are shown."""
MOST_LABELS = 24
"""Classes whose labels are counted on the page."""


class Look(NamedTuple):
    """How the page shows a state: in a colour of the theme, by the name of its class there, and in words."""

    colour: str
    words: str


LOOKS = {
    STATES[SETTLED]: Look(
        "labelled", "The annotators agree well enough, or a person decided: the image has its label."
    ),
    STATES[DISPUTED]: Look("picked", "All answers are there, and they disagree: the image has no label. See below."),
    STATES[SKIPPED]: Look("duplicate", "Most annotators gave no answer. It gets no label and is not picked again."),
    STATES[IN_PART]: Look("other", "Some of its answers are still missing, so it has no label yet."),
    STATES[OUT]: Look("other", "No answer came yet."),
    STATES[GIVEN_UP]: Look("other", "Given up, because it was out for too long."),
    STATES[TAKEN_BACK]: Look("other", "Taken back from the vendor."),
    STATES[RETRACTED]: Look("other", "A person took its label away."),
}
"""By state, what is done first."""
NOT_OF_ROUND = -1
_VOTE_COLUMNS = ["vendor", "annotator", "value", "skipped", "seconds", "reason", "answered_at"]


class RoundAnswers(NamedTuple):
    """A round's answers.

    `campaign` is as of its current round, `number` the round that is shown; `numbers` are the places of its batches in
    the ledger. `state_U` is the state in STATES of each image that the round sent or that was picked in it and answered
    anyway, and NOT_OF_ROUND for others, gold images among them. `votes` are the newest versions of the answers on these
    images and on the round's gold images, and `item_V` the places of their images.
    """

    campaign: Campaign
    number: int
    ledger: Ledger
    snapshot: Snapshot
    numbers: list[int]
    state_U: NDArray[np.int8]
    votes: pa.Table
    item_V: Counts

    @property
    def task(self) -> str:
        return self.campaign.config.handoff.question.task

    def count(self, *states: int) -> int:
        """How many images are in these states."""
        return int(np.isin(self.state_U, states).sum())


def read_round(campaign: Campaign, number: int) -> RoundAnswers:
    """The answers of a round. `campaign` is as of its current round, whose options decide what is settled."""
    snapshot = read_snapshot(campaign.home)
    ledger = read_ledger(campaign, snapshot)
    outcomes, is_gold_U = ledger.outcomes, ledger.items.are_gold
    numbers = ledger.of_round(number)
    is_own_U = (ledger.items.round_U == number) & (outcomes.num_votes > 0)
    state_U = np.where(is_own_U, ledger.state_U, NOT_OF_ROUND).astype(np.int8)
    # Of an image that was taken back and sent again the last row counts.
    for own in map(ledger.sent.slice_of, numbers):
        state_U[ledger.item_R[own]] = ledger.state_R[own]
    is_own_U = state_U != NOT_OF_ROUND
    state_U[is_gold_U] = NOT_OF_ROUND
    is_own_V = is_own_U[outcomes.item_V]
    votes = outcomes.votes.select(_VOTE_COLUMNS).filter(pa.array(is_own_V))
    return RoundAnswers(campaign, number, ledger, snapshot, numbers, state_U, votes, outcomes.item_V[is_own_V])


def headline(answers: RoundAnswers, num_annotators: int) -> Row:
    """The numbers at the top of the page by what they count."""
    spent = sum(answers.ledger.spent(number) for number in answers.numbers)
    found: Row = {
        "images sent": int((answers.state_U != NOT_OF_ROUND).sum()),
        "answers that came": len(answers.votes),
        "annotators": num_annotators,
        "images settled": answers.count(SETTLED),
        "images disputed": answers.count(DISPUTED),
        "images skipped": answers.count(SKIPPED),
        "images still out": answers.count(OUT, IN_PART),
    }
    return found | ({"spent on these answers": f"{spent:,.2f}"} if any(answers.ledger.prices) else {})


def states(answers: RoundAnswers) -> dict[str, int]:
    """How many images are in each state, what is done first, without the states that none is in."""
    return {state: count for state in LOOKS if (count := answers.count(STATES.index(state)))}


def batches(answers: RoundAnswers) -> list[Row]:
    """What was sent, to whom, and what it costs: a row a batch."""
    ledger, found = answers.ledger, []
    for number in answers.numbers:
        batch, own = ledger.batches[number], ledger.sent.slice_of(number)
        sending, counts, gold = (
            batch.manifest["sending"],
            ledger.counts(number),
            batch.manifest["counts"].get("gold", 0),
        )
        rest = {state: count for state, count in counts.items() if STATES.index(state) > SKIPPED}
        found.append(
            {
                "batch": batch.folder.name,
                "vendor": sending["vendor"],
                "sent": batch.manifest["completed_at"][:10],
                "disputed": sending["disputed"],
                "images": batch.manifest["counts"]["images"] - gold,
                "gold": gold,
                "annotators": sending["annotators"],
                "settled": counts.get(STATES[SETTLED], 0),
                "disputed_images": counts.get(STATES[DISPUTED], 0),
                "skipped": counts.get(STATES[SKIPPED], 0),
                "out": counts.get(STATES[OUT], 0) + counts.get(STATES[IN_PART], 0),
                "rest": ", ".join(f"{count:,} {state}" for state, count in rest.items()),
                "price": ledger.prices[number],
                "asked": ledger.sent.asked(number) * (own.stop - own.start),
                "came": int(ledger.paid_R[own].sum()),
                "spent": ledger.spent(number),
                "reserved": ledger.reserved(number),
            }
        )
    return found


def skip_reasons(answers: RoundAnswers) -> dict[str, int]:
    """How many answers were skipped by reason, the most frequent first."""
    counts = _counted(answers.votes["reason"].filter(answers.votes["skipped"]))
    shown = {reason or NO_REASON: count for reason, count in counts.most_common(MOST_REASONS)}
    rest = counts.total() - sum(shown.values())
    return shown | ({"other reasons": rest} if rest else {})


def arms(answers: RoundAnswers) -> dict[str, dict[str, int]]:
    """The states of the images that the round picked, by arm."""
    ledger = answers.ledger
    is_control_U = np.zeros(len(answers.state_U), bool)
    for number, batch in enumerate(ledger.batches):
        is_control = pc.fill_null(pc.equal(batch.rows(["origin"])["origin"], ORIGIN_CONTROL), fill_value=False)
        is_control_U[ledger.item_R[ledger.sent.slice_of(number)][is_control.to_numpy()]] = True
    is_own_U = (answers.state_U != NOT_OF_ROUND) & (ledger.items.round_U == answers.number)
    found = {}
    for arm, is_arm_U in (("by the rule (query)", ~is_control_U), ("at random (control)", is_control_U)):
        counts = np.bincount(answers.state_U[is_own_U & is_arm_U], minlength=len(STATES)).tolist()
        found[arm] = dict(zip(STATES, counts, strict=True))
    return found


class LabelCount(NamedTuple):
    """A class, how many labels of the round are of it, and how many other labels the campaign has of it."""

    name: str
    num_new: int
    num_others: int


def label_counts(answers: RoundAnswers) -> list[LabelCount]:
    """The classes of the round's labels, the most frequent first."""
    labels = answers.snapshot.labels
    is_new = pc.fill_null(pc.equal(labels["round"], answers.number), fill_value=False)
    new, others = (_by_class(labels["label"].filter(mask), answers.task) for mask in (is_new, pc.invert(is_new)))
    return [LabelCount(name, count, others[name]) for name, count in sorted(new.items(), key=lambda c: (-c[1], c[0]))]


def new_classes(answers: RoundAnswers) -> list[str]:
    """The classes of the round's labels that neither the first labels nor those of earlier rounds ever had."""
    history = answers.snapshot.history
    is_earlier = pc.fill_null(pc.less(history["round"], answers.number), fill_value=True)
    known = _by_class(history["label"].filter(is_earlier), answers.task)
    return [found.name for found in label_counts(answers) if found.name not in known]


def _by_class(labels: pa.ChunkedArray, task: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for label, count in _counted(labels.drop_null()).items():
        found.update(dict.fromkeys(map(_name_of, _parts(label or "", task)), count))
    return found


def _counted(column: pa.ChunkedArray) -> Counter[str | None]:
    """How often each value is there. Python sees each different one only once."""
    return Counter({row["values"]: row["counts"] for row in column.value_counts().to_pylist()})


def value_text(value: str, task: str) -> str:
    """A value as the page writes it: several classes and shapes as a list of classes, with how often each is there."""
    counts = Counter(map(_name_of, _parts(value, task)))
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items()) or "(none)"


def _parts(value: str, task: str) -> list[Any]:
    """The classes or shapes of a value. A class of one class may look like JSON, and a label of several may be from
    another program, which knows no JSON."""
    try:
        found = json.loads(value) if task != "class" else value
    except ValueError:
        return [value]
    return found if isinstance(found, list) else [value]


def _name_of(part: Any) -> str:
    return str(part.get("label", "")) if isinstance(part, dict) else str(part)
