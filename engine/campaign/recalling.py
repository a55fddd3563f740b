"""What is out at a vendor is taken back, or given up."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.campaign.decisions import EXPIRED, PICK_AGAIN, RECALLED, Author, decide, released
from engine.campaign.folder import Campaign
from engine.campaign.ledger import DISPUTED, IN_PART, OUT, Ledger, read_ledger
from engine.errors import ConfigError


def recall(campaign: Campaign, batch: str, author: Author, *, pick_again: bool) -> int:
    """Take back what no answer came for yet. Returns how many images that are; those that were taken back or given up
    before are not counted, but may be picked again too where that is asked for.

    Answers that come all the same are taken in.

    Args:
        batch: the name of a batch of this round, as generic-000, or its record below the campaign; empty: all of all
            rounds.
        pick_again: whether the images may be picked and sent again.

    Raises ConfigError where there is no such batch.
    """
    ledger = read_ledger(campaign)
    numbers = [
        number
        for number, sent in enumerate(ledger.batches)
        if batch in ("", sent.record) or (batch == sent.folder.name and sent.manifest["round"] == campaign.round)
    ]
    if not numbers:
        there = ", ".join(sent.record for sent in ledger.batches) or "none"
        raise ConfigError(f"{campaign.home}: no batch {batch!r} in round {campaign.round:03d}; there are: {there}")
    return _take_back(campaign, ledger, numbers, RECALLED, author, pick_again=pick_again)


def expire(campaign: Campaign, author: Author, *, pick_again: bool) -> int:
    """Give up what is out for longer than handoff.expires_days. Returns how many images that are."""
    ledger = read_ledger(campaign)
    before = datetime.now(UTC) - timedelta(days=campaign.config.handoff.expires_days)
    sent_at = [datetime.fromisoformat(batch.manifest["completed_at"]) for batch in ledger.batches]
    numbers = [number for number, at in enumerate(sent_at) if at < before]
    return _take_back(campaign, ledger, numbers, EXPIRED, author, pick_again=pick_again)


def _take_back(
    campaign: Campaign, ledger: Ledger, numbers: list[int], kind: str, author: Author, *, pick_again: bool
) -> int:
    is_own = np.isin(ledger.batch_R, numbers)
    is_unanswered = np.isin(ledger.state_U, (OUT, IN_PART, DISPUTED))[ledger.item_R]
    is_back = is_own & (ledger.back_R > 0) & is_unanswered
    is_open = is_own & np.isin(ledger.state_R, (OUT, IN_PART))
    is_gold = ledger.rows["gold"].to_numpy()
    decide(campaign.home, kind, _rows(ledger, is_open), author)
    if pick_again:
        # After the other decision: what may be picked again is out nowhere. An image with answers is sent again only to
        # ask more people.
        is_more = np.array([sent.manifest["sending"]["disputed"] for sent in ledger.batches], bool)[ledger.batch_R]
        is_free = (is_open | is_back) & (is_more | (ledger.outcomes.num_votes[ledger.item_R] == 0)) & ~is_gold
        before = released(campaign.home)
        decide(
            campaign.home, PICK_AGAIN, (row for row in _rows(ledger, is_free) if (row[3], row[0]) not in before), author
        )
    return int((is_open & ~is_gold).sum())


def _rows(ledger: Ledger, mask: NDArray[np.bool_]) -> list[tuple[str, str, str, str | None]]:
    rows = ledger.rows.filter(pa.array(mask)).select(["item_id", "shard", "key"]).to_pylist()
    records = [ledger.batches[number].record for number in ledger.batch_R[mask].tolist()]
    return [(row["item_id"], row["shard"], row["key"], record) for row, record in zip(rows, records, strict=True)]
