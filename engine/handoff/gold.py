"""Gold images: labelled ones that are mixed into a batch, to see how often annotators are right.

A vendor cannot tell them from the others: their names are as opaque, and new in each batch.
"""

import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa

from engine.campaign.classes import names_in
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import all_batches
from engine.campaign.labels import INITIAL, POSITIONS_SCHEMA, Identity, identities, read_snapshot
from engine.campaign.positions import labelled_positions
from engine.campaign.stages import Log
from engine.config.handoff_options import HandoffConfig
from engine.config.texts import plural
from engine.handoff.exchange import Question


def gold_images(
    campaign: Campaign, vendor: str, question: Question, record: str, images: pa.Table, log: Log
) -> pa.Table:
    """The gold images of a batch: item_id, and POSITIONS_SCHEMA. No bytes that the vendor was ever sent are among them:
    it would know an image that it has under another name. The campaign's first labels come first, and of them what was
    gold less often elsewhere.

    Args:
        record: the folder of the batch's record below the campaign; it names the draw.
        images: those of the batch to be labelled: shard, key, content_hash. Gold ones hide among those of them that the
            vendor does not know.
    """
    home, handoff = campaign.home, campaign.config.handoff
    if not num_gold_of(handoff, len(images)):
        if len(images) and handoff.gold_fraction:
            share = f"handoff.gold_fraction={handoff.gold_fraction:g}"
            log(f"no gold image goes along: {share} of {plural(len(images), 'image')} is none")
        return POSITIONS_SCHEMA.empty_table().append_column("item_id", pa.array([], pa.string()))
    known: set[Identity | str] = set()
    used: Counter[Identity] = Counter()
    for batch in all_batches(home, campaign.round + 1):
        rows = batch.rows()
        known.update(*(_names_of_each(rows) if batch.vendor == vendor else ()))
        used.update(identities(rows.filter(rows["gold"])))
    new = sum(known.isdisjoint(names) for names in _names_of_each(images))
    wanted = num_gold_of(handoff, new)
    snapshot = read_snapshot(home)
    places, labels = labelled_positions(home), snapshot.values
    first = set(identities(snapshot.tables.get(f"labels/{INITIAL}.parquet", snapshot.history)))
    there = identities(places)
    keys = [gold_name(campaign.config.salt, record, *item) for item in there]
    known.update(*_names_of_each(images))
    chosen, asked = list[int](), set(question.classes)
    names = _names_of_each(places)
    for n in sorted(range(len(there)), key=lambda n: (there[n] not in first, used[there[n]], keys[n])):
        # An answer can be right only where the label has only classes that are asked for.
        is_fit = question.is_open or asked.issuperset(names_in(labels[there[n]], question.task))
        if len(chosen) < wanted and is_fit and known.isdisjoint(names[n]):
            chosen.append(n)
            known |= names[n]
    if len(chosen) < wanted:
        why = f"{len(chosen):,} labelled fit that {vendor} was never sent: all are used"
        log(f"handoff.gold_fraction asks for {plural(wanted, 'gold image')}, and {why}")
    elif not new:
        log(
            f"no gold image goes along: {vendor} was sent all of these images before, so that a new one would stand out"
        )
    item_ids = pa.array([keys[n] for n in chosen], pa.string())
    return places.take(pa.array(chosen, pa.int64())).append_column("item_id", item_ids)


def _names_of_each(rows: pa.Table) -> list[set[Identity | str]]:
    """What says that two rows are of the same image: (shard, key), and the hash of its bytes where that is known."""
    hashes = rows["content_hash"].to_pylist()
    return [{item, content} if content else {item} for item, content in zip(identities(rows), hashes, strict=True)]


def num_gold_of(handoff: HandoffConfig, num_images: int) -> int:
    """How many gold images go with so many others, where there are enough."""
    return round(handoff.gold_fraction * num_images)


def mixed(num_images: int, num_gold: int, seed: int) -> list[int]:
    """The order of tasks: the images 0 to num_images - 1 in their order, and at random places the gold ones, which are
    numbered after them."""
    rng = np.random.default_rng([seed, num_images, num_gold])
    total = num_images + num_gold
    is_gold = np.zeros(total, bool)
    is_gold[rng.choice(total, num_gold, replace=False)] = True
    order = np.empty(total, np.int64)
    order[~is_gold] = np.arange(num_images)
    order[is_gold] = num_images + rng.permutation(num_gold)
    found: list[int] = order.tolist()
    return found


def gold_name(salt: str, record: str, shard: str, key: str) -> str:
    """The name of a gold image in a batch: as opaque as an item_id, and another one."""
    identity = f"gold\0{record}\0{shard}\0{key}".encode()
    return hashlib.blake2b(identity, digest_size=16, key=bytes.fromhex(salt)).hexdigest()
