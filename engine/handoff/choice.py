"""Which picks go out now, and whether there is money for them."""

import hashlib
import shlex
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.campaign.advice import force_command, may_be_asked
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import completed, waiting_picks
from engine.campaign.ledger import Ledger, read_ledger
from engine.campaign.manifests import SelectionManifest, read_manifest
from engine.campaign.places import placed
from engine.campaign.sharing import claim
from engine.config.texts import plural
from engine.errors import ConfigError
from engine.handoff.gold import num_gold_of
from engine.pool.metadata import read_strata
from engine.tables.selections import SELECTION_SCHEMA


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
    """The images to send, most valuable first: rank, item_id, shard, key, offset, size_bytes, content_hash, origin; how
    many other picks wait to be sent; and how many cannot be, because they are in their shards no more."""

    images: pa.Table
    num_waiting: int
    num_lost: int


_COLUMNS = ["rank", "item_id", "shard", "key", "offset", "size_bytes", "content_hash", "origin"]


def candidates_of(campaign: Campaign, wish: Wish) -> pa.Table:
    """The images that may be sent, most valuable first; the columns are those of `Chosen`."""
    if wish.limit == 0:
        return SELECTION_SCHEMA.empty_table().select(_COLUMNS)
    return _disputed(campaign) if wish.is_disputed else waiting_picks(campaign.home, campaign.round).select(_COLUMNS)


def chosen_of(campaign: Campaign, wish: Wish, candidates: pa.Table) -> Chosen:
    """Which of the candidates a wish is for. Those that are in their shards no more do not count."""
    here, lost = placed(campaign.home, candidates)
    fitting = _of_stratum(campaign, here, wish.stratum) if wish.stratum else here
    if wish.share < 1:
        num_picks = read_manifest(campaign, "selection", SelectionManifest)["counts"]["picked"]
        fitting = _part(fitting, round(wish.share * num_picks))
    chosen = fitting.slice(0, wish.limit)
    return Chosen(chosen, 0 if wish.is_disputed else len(here) - len(chosen), len(lost))


def require_sendable(campaign: Campaign, vendor: str, wish: Wish, images: pa.Table, num_gold: int) -> None:
    """Claim the images in pool.shared_ledger, from the last check before they are sent on.

    Raises ConfigError where there is no money for them, or another campaign has one of them.
    """
    require_money(campaign, vendor, wish, len(images), num_gold)
    # More people are asked about what this campaign had out before.
    if not wish.is_disputed:
        is_sent = bool(completed(campaign, "handoff"))
        claim(campaign, images, force_command(campaign) if is_sent else f"vaal select {campaign.home.quoted}")


def _disputed(campaign: Campaign) -> pa.Table:
    """The images that more people may be asked about, the least certain first."""
    ledger = read_ledger(campaign)
    items = ledger.items.rows(may_be_asked(campaign, ledger))
    ranks, none = pa.array(range(len(items)), pa.int64()), pa.nulls(len(items), pa.string())
    return items.append_column("rank", ranks).append_column("origin", none).select(_COLUMNS)


def answers_of(campaign: Campaign, images: pa.Table) -> pa.Array:
    """How many answers came of each image so far."""
    ledger = read_ledger(campaign)
    place_N = ledger.items.places_of(images["item_id"])
    came_N = np.zeros(len(images), np.int64)
    came_N[place_N >= 0] = ledger.came_U[place_N[place_N >= 0]]
    return pa.array(came_N)


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


def require_money(campaign: Campaign, vendor: str, wish: Wish, num_images: int, num_gold: int) -> None:
    """Raises ConfigError where handoff.money_limit has no room for so many images, with so many gold ones besides."""
    handoff = campaign.config.handoff
    each = Decimal(str(handoff.price)) * handoff.annotators
    cost = each * (num_images + num_gold)
    if handoff.money_limit == "none" or not cost:
        return
    limit, ledger = Decimal(str(handoff.money_limit)), read_ledger(campaign)
    if ledger.spend + cost > limit:
        room = int(max(limit - ledger.spend, Decimal(0)) // each)
        fits = (n for n in range(room, 0, -1) if n + min(num_gold_of(handoff, n), num_gold) <= room)
        most = next(fits, 0)
        fix = f"send fewer: {_command(campaign, vendor, wish, most)}" if most else "nothing more can be sent"
        gold = f" ({num_gold:,} of them gold)" if num_gold else ""
        sums = cost_text(num_images + num_gold, handoff.annotators, handoff.price)
        why = f"{sums}{gold}; used so far: {money_text(campaign, ledger)}"
        raise ConfigError(
            f"{campaign.home}: {why}; {fix}, or raise the limit: --set handoff.money_limit={ledger.spend + cost:f}"
        )


def cost_text(num_images: int, annotators: int, price: float) -> str:
    """What images cost, as a sum: "44 images x 3 people x 0.05 = 6.60"."""
    cost = Decimal(str(price)) * annotators * num_images
    people = f"{annotators} {'person' if annotators == 1 else 'people'}"
    return f"{plural(num_images, 'image')} x {people} x {Decimal(str(price)):f} = {cost:,.2f}"


def money_text(campaign: Campaign, ledger: Ledger) -> str:
    """What was spent and is reserved, beside the limit."""
    spent = sum(map(ledger.spent, range(len(ledger.batches))), Decimal(0))
    text = f"{spent:,.2f} spent and {ledger.spend - spent:,.2f} reserved, in all {ledger.spend:,.2f}"
    if (limit := campaign.config.handoff.money_limit) == "none":
        return text
    text += f" of handoff.money_limit={limit:,}"
    is_over = ledger.spend > Decimal(str(limit))
    return f"{text}: more than the limit, so nothing else goes out that costs money" if is_over else text


def _command(campaign: Campaign, vendor: str, wish: Wish, limit: int) -> str:
    """The export of a wish, of at most so many images."""
    words = ["--to", vendor, "--limit", f"{limit}"]
    words += ["--disputed"] if wish.is_disputed else []
    words += ["--share", f"{wish.share}"] if wish.share < 1 else []
    words += ["--stratum", wish.stratum] if wish.stratum else []
    return f"vaal export {campaign.home.quoted} {shlex.join(words)}"
