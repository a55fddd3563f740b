"""Labels from a file that come to a campaign after its init, as those of images that were packed later."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.campaign.classes import new_names
from engine.campaign.corrections import correction_row, require_class, rounds_of
from engine.campaign.decisions import USER, Author, forgotten
from engine.campaign.first_labels import rows_of, wanted_of
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import are_out
from engine.campaign.labels import append_labels, identities, read_snapshot
from engine.campaign.positions import positions_of
from engine.campaign.stages import Log
from engine.errors import InputError
from engine.pool.identity import item_id_of
from engine.pool.manifest import read_shards
from engine.pool.shard import current
from engine.pool.shards import Shards
from engine.storage.location import Location
from engine.tables.item_keys import rows_of_items


class Added(NamedTuple):
    """How many images got a label, how many have the same one already, and how many keep another one, or none: what
    people, votes and earlier files said of an image stays. `out` are at a vendor: their answers are paid for, and
    count."""

    added: int
    same: int
    kept: int
    out: int


def add_labels(campaign: Campaign, source: Location, log: Log, author: Author = USER) -> Added:
    """Give their labels to the images of a table that never had one, or whose label was undone: all of them, or none
    where a row is refused.

    Args:
        source: CSV, JSON lines or Parquet with shard, key and label, as for init.

    Raises InputError for no rows, an unknown shard or key, an empty label, an image with two rows, or a class that an
    ingest would refuse.
    """
    home, config, snapshot = campaign.home, campaign.config, read_snapshot(campaign.home)
    shards = read_shards(home)
    rows = rows_of(source, config, "vaal labels add")
    if not rows:
        raise InputError(f"{source}: no labels; give rows of shard, key and label")
    wanted = wanted_of(source, rows, shards, config)
    label_of = {(shard, key): str(row["label"]) for shard, items in wanted.items() for key, row in items.items()}
    # Without what was undone: who takes back a wrong file adds the right one.
    known = {*identities(snapshot.last_words()), *forgotten(home)}
    asked = [item for item in label_of if item not in known]
    names = pa.chunked_array([pa.array([item_id_of(*item, config.salt) for item in asked], pa.string())])
    out = {asked[number] for number in np.flatnonzero(are_out(home, campaign.round + 1, names))}
    new = {item: label for item, label in sorted(label_of.items()) if item not in known | out}
    values = snapshot.values
    same = sum(values.get(item) == label for item, label in label_of.items() if item in known)
    for item, label in new.items():
        require_class(campaign, snapshot, item, label)
    if new:
        here = Shards.of(map(current, shards.find(shard for shard, _ in new).values()))
        positions_of(home, rows_of_items(list(new)), here, config.image, log, new_in=str(source))
        history = snapshot.history["label"].drop_null().to_pylist()
        for name in new_names(sorted(set(new.values())), history, config.handoff.question.task):
            log(f"new class, never seen in this campaign before: {name}")
        rounds = rounds_of(campaign, snapshot)
        append_labels(home, "add", [correction_row(item, new[item], rounds.get(item), author) for item in new])
    return Added(len(new), same, len(label_of) - len(new) - same - len(out), len(out))
