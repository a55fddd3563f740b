"""What is out at a vendor is taken back, or given up."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.campaign.decisions import EXPIRED, PICK_AGAIN, RECALLED, Author, decide, released
from engine.campaign.folder import Campaign
from engine.campaign.ledger import DISPUTED, IN_PART, OUT, Ledger, read_ledger
from engine.errors import ConfigError


class TakenBack(NamedTuple):
    """How many images were taken back or given up, how many may be picked again by this, and the records of the batches
    of which some were taken back and may not."""

    images: int
    released: int
    kept: list[str]


def recall(campaign: Campaign, names: Collection[str], author: Author, *, pick_again: bool) -> TakenBack:
    """Take back what is out: nobody waits for more answers of it, and those that came decide. What was taken back or
    given up before may be picked again too, where that is asked for.

    Answers that come all the same are taken in.

    Args:
        names: of batches of this round, as generic-000, or their records below the campaign; none: all of all rounds.
        pick_again: whether the images may be picked and sent again; with answers only where more people were asked.

    Raises ConfigError where there is no such batch.
    """
    ledger = read_ledger(campaign)
    named = [
        {sent.record, sent.folder.name} if sent.manifest["round"] == campaign.round else {sent.record}
        for sent in ledger.batches
    ]
    for name in sorted(set(names) - set().union(*named)):
        there = ", ".join(sent.record for sent in ledger.batches) or "none"
        raise ConfigError(f"{campaign.home}: no batch {name!r} in round {campaign.round:03d}; there are: {there}")
    numbers = [number for number, own in enumerate(named) if not names or own & set(names)]
    return _take_back(campaign, ledger, numbers, RECALLED, author, pick_again=pick_again)


def expire(campaign: Campaign, author: Author, *, pick_again: bool) -> TakenBack:
    """Give up what is out for longer than handoff.expires_days."""
    ledger = read_ledger(campaign)
    before = datetime.now(UTC) - timedelta(days=campaign.config.handoff.expires_days)
    sent_at = [datetime.fromisoformat(batch.manifest["completed_at"]) for batch in ledger.batches]
    numbers = [number for number, at in enumerate(sent_at) if at < before]
    return _take_back(campaign, ledger, numbers, EXPIRED, author, pick_again=pick_again)


def _take_back(
    campaign: Campaign, ledger: Ledger, numbers: list[int], kind: str, author: Author, *, pick_again: bool
) -> TakenBack:
    batch_R = ledger.sent.batch_of_each()
    is_own = np.isin(batch_R, numbers)
    is_unanswered = np.isin(ledger.state_U, (OUT, IN_PART, DISPUTED))[ledger.item_R]
    is_back = is_own & (ledger.back_R > 0) & is_unanswered
    is_open = is_own & ledger.waited_for
    is_gold = ledger.gold_R
    decide(campaign.home, kind, _rows(ledger, is_open), author)
    # An image with answers is sent again only to ask more people.
    is_more = np.array([sent.manifest["sending"]["disputed"] for sent in ledger.batches], bool)[batch_R]
    is_free = (is_open | is_back) & (is_more | (ledger.outcomes.num_votes[ledger.item_R] == 0)) & ~is_gold
    before = released(campaign.home)
    free = [row for row in _rows(ledger, is_free) if (row[3], row[0]) not in before]
    if pick_again:
        # After the other decision: what may be picked again is out nowhere.
        decide(campaign.home, PICK_AGAIN, free, author)
    opened = set(batch_R[is_open].tolist())
    kept = sorted({row[3] for row in free if row[3]} & {ledger.batches[number].record for number in opened})
    images = len(np.unique(ledger.item_R[is_open & ~is_gold]))
    return TakenBack(images, len({row[0] for row in free}) if pick_again else 0, [] if pick_again else kept)


def _rows(ledger: Ledger, mask: NDArray[np.bool_]) -> list[tuple[str, str, str, str | None]]:
    rows = ledger.rows(["item_id", "shard", "key"], mask).to_pylist()
    records = [ledger.batches[number].record for number in ledger.sent.batches_of(np.flatnonzero(mask)).tolist()]
    return [(row["item_id"], row["shard"], row["key"], record) for row, record in zip(rows, records, strict=True)]
