"""Images that are to be forgotten, for privacy: never picked, shown or trained on again, without labels and copies.

The decision is written first, and everything else follows from it: whatever was interrupted is completed by the same
command. What cannot be deleted from here is named.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NamedTuple

import pyarrow.compute as pc

from engine.campaign.corrections import FORGET, correction_row, rounds_of
from engine.campaign.decisions import FORGOTTEN, Author, decide, decided, forgotten, read_decisions
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import SentBatch, all_batches, picked_items
from engine.campaign.labels import Identity, append_labels, identities, read_snapshot
from engine.campaign.settling import settle
from engine.campaign.stages import Log
from engine.errors import InputError
from engine.handoff.copies import Erased, erase
from engine.pool.identity import item_id_of
from engine.pool.items import read_shard
from engine.pool.manifest import read_shards
from engine.pool.shard import current
from engine.storage.location import Location
from engine.tables.rows import read_rows
from engine.tables.values import text_of

LEFT_ALWAYS = (
    "the numbers that networks made of them before: scores and latents in rounds/*/scores, rounds/*/selection, and in "
    "the weights what was learnt from them",
    "their names and the history of their labels and votes, as text: labels/, votes/, consensus/, decisions/, and the "
    "task files of batches that are out",
    "label sets that labels export wrote before, which hold the images still: delete these folders, and export again",
)


class Forgotten(NamedTuple):
    """How many images and labels of them were forgotten now, which files are deleted, and in words what is left."""

    images: int
    labels: int
    deleted: list[str]
    left: list[str]


def forget(campaign: Campaign, file: Location, author: Author, log: Log) -> Forgotten:
    """Forget the images of a table with the column item_id, or with shard and key. Repeated, it completes itself.

    Raises InputError for rows that name no image, with all reasons, and for a shard that cannot be read; nothing is
    done then.
    """
    wanted = _wanted(campaign, file, log)
    salt, before = campaign.config.salt, forgotten(campaign.home)
    new = [(item_id_of(*item, salt), *item, None) for item in wanted if item not in before]
    decide(campaign.home, FORGOTTEN, new, author)
    num_labels = _retract(campaign, wanted, author)
    settle(campaign)
    batches = all_batches(campaign.home, campaign.round + 1)
    erased = erase(campaign, set(wanted), batches, _decided_at(campaign, set(wanted)))
    return Forgotten(len(wanted), num_labels, erased.deleted, [*_left(campaign, wanted, batches, erased)])


def _retract(campaign: Campaign, wanted: list[Identity], author: Author) -> int:
    """Take the labels away, and let no answer that comes later give one. Returns the number of labels."""
    snapshot = read_snapshot(campaign.home)
    done: set[Identity] = set()
    for name, table in snapshot.tables.items():
        if name not in snapshot.undone:
            done = done | set(identities(table)) if f"-{FORGET}-" in name else done - set(identities(table))
    labels, rounds = snapshot.values, rounds_of(campaign, snapshot)
    rows = [correction_row(item, None, rounds.get(item), author) for item in wanted if item not in done]
    if rows:
        append_labels(campaign.home, FORGET, rows)
    return sum(item in labels for item in wanted)


def _decided_at(campaign: Campaign, wanted: set[Identity]) -> datetime:
    """When the last of these images was decided on."""
    rows = decided(read_decisions(campaign.home), FORGOTTEN)
    own = rows.filter([item in wanted for item in identities(rows)])
    return datetime.fromtimestamp(pc.max(own["at"]).as_py().timestamp(), UTC)


def _wanted(campaign: Campaign, file: Location, log: Log) -> list[Identity]:
    """The images that a table names, each once, in its order."""
    names, refused = _known(campaign), list[str]()
    found: dict[Identity, str] = {}
    for row in read_rows(file, ()):
        where = f"{file}: line {row['line']}"
        item = _named(row, where, names)
        if isinstance(item, str):
            refused.append(f"{where}: {item}")
        else:
            found.setdefault(item, where)
    there = {*names.values(), *forgotten(campaign.home)}
    refused += _not_there(campaign, {item: where for item, where in found.items() if item not in there})
    fix = "nothing was forgotten: correct the table"
    if len(refused) == 1:
        raise InputError(f"{refused[0]}; {fix}")
    if refused:
        for reason in refused:
            log(f"refused: {reason}")
        raise InputError(f"{file}: {len(refused):,} rows name no image; {fix}")
    if not found:
        raise InputError(f"{file}: no rows; give a table of item_id, or of shard and key")
    return list(found)


def _known(campaign: Campaign) -> dict[str, Identity]:
    """Everything that was picked, sent or labelled, by each of its names for vendors."""
    salt = campaign.config.salt
    tables = [batch.rows() for batch in all_batches(campaign.home, campaign.round + 1)]
    tables += [picked_items(campaign.home, campaign.round + 1, with_released=True)]
    names = {
        item_id: item
        for table in tables
        for item_id, item in zip(table["item_id"].to_pylist(), identities(table), strict=True)
    }
    return names | {item_id_of(*item, salt): item for item in identities(read_snapshot(campaign.home).history)}


def _named(row: dict[str, Any], where: str, names: dict[str, Identity]) -> Identity | str:
    """The image that a row names, or why it names none."""
    shard, key, item_id = (text_of(row.get(name), f"{where}: {name}") for name in ("shard", "key", "item_id"))
    by_id = names.get(item_id)
    if bool(shard) != bool(key):
        return f"no {'key' if shard else 'shard'!r}; give both shard and key, or item_id"
    if item_id and not shard and not by_id:
        return f"item_id {item_id!r} was never handed out or labelled; give shard and key"
    if not item_id and not shard:
        return "no item_id, and no shard and key; give one of them"
    if shard and by_id and by_id != (shard, key):
        return f"item_id {item_id!r} is {'/'.join(by_id)}, and shard and key are {shard}/{key}; correct one of them"
    return (shard, key) if shard else by_id or (shard, key)


def _not_there(campaign: Campaign, items: dict[Identity, str]) -> Iterator[str]:
    """Why items are not in the pool, which their shards are read for; `items` with their places in the table."""
    names = {shard for shard, _ in items}
    shards = read_shards(campaign.home).at_root(campaign.config.pool.root).find(names)
    keys = {
        name: {item.key for item in read_shard(current(shards[name]), campaign.config.image)} for name in sorted(shards)
    }
    for (shard, key), where in items.items():
        if shard not in keys:
            yield f"{where}: shard {shard!r} is not in the pool; give it as vaal select --explain names it"
        elif key not in keys[shard]:
            yield f"{where}: shard {shard!r} has no item {key!r}, and nothing is known of one; correct the key"


def _left(campaign: Campaign, wanted: list[Identity], batches: list[SentBatch], erased: Erased) -> Iterator[str]:
    """What only people can delete, a line each; first what there is of any image."""
    yield from chain(LEFT_ALWAYS, erased.left)
    shards = read_shards(campaign.home).at_root(campaign.config.pool.root)
    urls = {name: shard.url for name, shard in shards.find(shard for shard, _ in wanted).items()}
    for shard, key in wanted:
        where = f" ({urls[shard]})" if shard in urls else ""
        yield f"the image in the pool: shard {shard}, key {key}{where}; delete it there"
    gone = set(wanted)
    for batch in batches:
        rows = batch.rows()
        for item_id, item in zip(rows["item_id"].to_pylist(), identities(rows), strict=True):
            if item in gone:
                yield f"the copy at {batch.vendor}: {item_id}, sent with {batch.folder.name}; ask for its deletion"
