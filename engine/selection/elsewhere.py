"""What other campaigns have out or labelled (pool.shared_ledger), as items that a selection leaves out."""

from collections import Counter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import Campaign
from engine.campaign.freshness import OTHERS
from engine.campaign.handed_out import PICKED_SCHEMA
from engine.campaign.labels import Identity, identities
from engine.campaign.sharing import HAS_LABEL, HAS_OUT, elsewhere, share
from engine.campaign.stages import Log
from engine.selection.parts import each
from engine.storage.location import Location
from engine.tables.score_reader import read_scores
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import records_in

READ_THREADS = 8


class Taken(NamedTuple):
    """`rows` are what other campaigns have, PICKED_SCHEMA; an image that is not in this pool has the URL of its shard
    as the name. `counts` says how many items of this pool that concerns, by reason, and `inputs` is what that follows
    from, by hash."""

    rows: pa.Table
    counts: dict[str, int]
    inputs: dict[str, str]


def taken_elsewhere(campaign: Campaign, records: pa.Table, log: Log) -> Taken:
    """What no pick may be, because another campaign has it, which is logged; what this one has is written for the
    others first.

    Raises InputError if the shared ledger cannot be read, StorageError if it cannot be written.
    """
    if not campaign.config.pool.shared_ledger:
        return Taken(PICKED_SCHEMA.empty_table(), {}, {})
    share(campaign)
    found = elsewhere(campaign)
    kinds, urls = found.rows["kind"].to_pylist(), found.rows["url"].to_pylist()
    names = [name or url for name, url in zip(found.shards, urls, strict=True)]
    hashes = found.rows["content_hash"].to_pylist()
    items: dict[Identity, tuple[str, str | None]] = dict(
        zip(zip(names, found.rows["key"].to_pylist(), strict=True), zip(kinds, hashes, strict=True), strict=True)
    )
    of_content = {content: kind for content, kind in zip(hashes, kinds, strict=True) if content}
    # Where duplicates may be picked, nothing else looks at bytes.
    if of_content and campaign.config.select.duplicates == "off":
        copies = _with_bytes(campaign.stage("scores"), records, pa.array([*of_content], pa.string()))
        items |= {item: (of_content[content], content) for item, content in copies.items()}
    here = set(records["shard"].to_pylist())
    counted = Counter(kind for (shard, _), (kind, _) in items.items() if shard in here)
    counts = {f"{kind}_elsewhere": counted[kind] for kind in (HAS_OUT, HAS_LABEL)}
    words = f"{counted[HAS_OUT]:,} out at a vendor and {counted[HAS_LABEL]:,} labelled"
    words += f", and {len(items) - counted.total():,} that are known by their bytes"
    log(f"left out, because other campaigns have them (pool.shared_ledger): {words}")
    return Taken(_rows(items), counts, {OTHERS: found.fingerprint})


def _rows(items: dict[Identity, tuple[str, str | None]]) -> pa.Table:
    rows = [
        {"item_id": "", "shard": shard, "key": key, "offset": 0, "size_bytes": 0, "content_hash": content, "round": -1}
        for (shard, key), (_, content) in sorted(items.items())
    ]
    return pa.Table.from_pylist(rows, PICKED_SCHEMA)


def _with_bytes(folder: Location, records: pa.Table, hashes: pa.Array) -> dict[Identity, str]:
    """The items of the scores files that have these content hashes."""

    def look(record: ShardRecord) -> pa.Table:
        table = read_scores(folder, record, ["shard", "key", "content_hash"])
        return table.filter(pc.is_in(table["content_hash"], value_set=hashes))

    found: dict[Identity, str] = {}
    for table in each(look, list(records_in(records)), READ_THREADS):
        found |= dict(zip(identities(table), table["content_hash"].to_pylist(), strict=True))
    return found
