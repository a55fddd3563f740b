"""Which picks go out now, and whether there is money for them."""

import hashlib
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.decisions import never_picked
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import still_out
from engine.campaign.labels import identities, labelled_items
from engine.campaign.ledger import DISPUTED, read_ledger
from engine.campaign.manifests import read_committed
from engine.errors import ConfigError
from engine.pool.metadata import read_strata
from engine.tables.selections import with_hash


class Wish(NamedTuple):
    """What of the picks is to be sent.

    Args:
        limit: at most so many images, the most valuable first; None: no limit.
        share: of all picks of the selection, a random part of this size, for one of several vendors.
        stratum: only images of this value of the column select.stratify.
        is_disputed: not picks, but images whose annotators disagree: more people are asked.
    """

    limit: int | None = None
    share: float = 1.0
    stratum: str = ""
    is_disputed: bool = False


ALL, NOTHING = Wish(), Wish(limit=0)


class Chosen(NamedTuple):
    """The images to send, most valuable first: rank, item_id, shard, key, offset, size_bytes, content_hash, origin; and
    how many other picks wait to be sent."""

    images: pa.Table
    num_waiting: int


_COLUMNS = ("rank", "item_id", "shard", "key", "offset", "size_bytes", "content_hash", "origin")


def chosen_of(campaign: Campaign, wish: Wish) -> Chosen:
    """The images that a wish is for. What is out, labelled, or never to be picked is not sent."""
    if wish.is_disputed:
        return Chosen(_disputed(campaign).slice(0, wish.limit), 0)
    picks = with_hash(read_committed(campaign.stage("selection"), "selection.parquet"))
    gone = {*labelled_items(campaign.home), *never_picked(campaign.home)}
    is_free = pc.invert(pc.is_in(picks["item_id"], value_set=still_out(campaign.home, campaign.round + 1)))
    is_left = np.array([item not in gone for item in identities(picks)], bool)
    waiting = picks.filter(pc.and_(is_free, pa.array(is_left))).sort_by("rank").select(list(_COLUMNS))
    fitting = _of_stratum(campaign, waiting, wish.stratum) if wish.stratum else waiting
    if wish.share < 1:
        fitting = _part(fitting, round(wish.share * len(picks)))
    chosen = fitting.slice(0, wish.limit)
    return Chosen(chosen, len(waiting) - len(chosen))


def _disputed(campaign: Campaign) -> pa.Table:
    """The images whose annotators disagree, the least certain first."""
    ledger = read_ledger(campaign)
    order = np.argsort(np.nan_to_num(ledger.outcomes.posterior_U), kind="stable")
    is_it = (ledger.state_U == DISPUTED) & ~ledger.items["gold"].to_numpy()
    items = ledger.items.take(pa.array(order[is_it[order]]))
    ranks, none = pa.array(range(len(items)), pa.int64()), pa.nulls(len(items), pa.string())
    return items.append_column("rank", ranks).append_column("origin", none).select(list(_COLUMNS))


def _of_stratum(campaign: Campaign, picks: pa.Table, stratum: str) -> pa.Table:
    column = campaign.config.select.stratify
    if not column:
        raise ConfigError(
            f"--stratum {stratum}: needs select.stratify, the column of pool.metadata that it is a value of"
        )
    strata = read_strata(campaign.home, column)
    if stratum not in strata.values():
        known = ", ".join(sorted(set(strata.values()))[:10])
        raise ConfigError(f"--stratum {stratum}: no shard has this value of {column}; there are: {known}")
    return picks.filter(pa.array([strata.get(shard) == stratum for shard in picks["shard"].to_pylist()], pa.bool_()))


def _part(picks: pa.Table, size: int) -> pa.Table:
    """So many picks at random, the same whenever it is asked, in the order of priority."""
    draws = [hashlib.blake2b(item_id.encode(), person=b"share").digest() for item_id in picks["item_id"].to_pylist()]
    first = sorted(range(len(draws)), key=draws.__getitem__)[:size]
    return picks.take(pa.array(sorted(first), pa.int64()))


def require_money(campaign: Campaign, num_images: int) -> Decimal:
    """What so many images cost. Raises ConfigError where handoff.money_limit has no room for it."""
    handoff = campaign.config.handoff
    each = Decimal(str(handoff.price)) * handoff.annotators
    cost = each * num_images
    if handoff.money_limit == "none":
        return cost
    limit, spend = Decimal(str(handoff.money_limit)), read_ledger(campaign).spend
    if spend + cost > limit:
        room = int(max(limit - spend, Decimal(0)) / each)
        fix = f"send fewer: --limit {room}" if room else "nothing more can be sent"
        why = (
            f"{num_images:,} images cost {cost:,}, and {spend:,} of handoff.money_limit={limit:,} are spent or reserved"
        )
        raise ConfigError(f"{campaign.home}: {why}; {fix}, or raise it: --set handoff.money_limit=...")
    return cost
