"""Gold images: labelled ones that are mixed into a batch, to see how often annotators are right.

A vendor cannot tell them from the others: their names are as opaque, and new in each batch.
"""

import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import all_batches
from engine.campaign.labels import POSITIONS_SCHEMA, identities, labelled_values
from engine.campaign.positions import labelled_positions
from engine.campaign.stages import Log
from engine.config.handoff_options import HandoffConfig
from engine.config.texts import plural
from engine.handoff.exchange import Question


def gold_images(campaign: Campaign, question: Question, record: str, num_images: int, log: Log) -> pa.Table:
    """The gold images of a batch: item_id, and POSITIONS_SCHEMA. Images that were gold less often come first.

    Args:
        record: the folder of the batch's record below the campaign; it names the draw.
        num_images: images of the batch to be labelled.
    """
    wanted = num_gold_of(campaign.config.handoff, num_images)
    if num_images and campaign.config.handoff.gold_fraction and not wanted:
        share = f"handoff.gold_fraction={campaign.config.handoff.gold_fraction:g}"
        log(f"no gold image goes along: {share} of {plural(num_images, 'image')} is none")
    places = labelled_positions(campaign.home) if wanted else POSITIONS_SCHEMA.empty_table()
    labels = labelled_values(campaign.home)
    there = identities(places)
    # An answer can be right only where the label is one of those that are asked for.
    fitting = [n for n, item in enumerate(there) if question.is_open or labels[item] in question.classes]
    if len(fitting) < wanted:
        why = f"{len(fitting):,} labelled ones fit: all are used"
        log(f"handoff.gold_fraction asks for {plural(wanted, 'gold image')}, and {why}")
    batches = all_batches(campaign.home, campaign.round + 1) if wanted else []
    sent = (batch.rows() for batch in batches)
    used = Counter(item for rows in sent for item in identities(rows.filter(rows["gold"])))
    keys = {n: gold_name(campaign.config.salt, record, *there[n]) for n in fitting}
    chosen = sorted(fitting, key=lambda n: (used[there[n]], keys[n]))[:wanted]
    names = pa.array([keys[n] for n in chosen], pa.string())
    return places.take(pa.array(chosen, pa.int64())).append_column("item_id", names)


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
