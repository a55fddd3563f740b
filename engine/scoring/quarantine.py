"""Whether too many items are quarantined."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.campaign.scored_shards import damaged_in
from engine.campaign.stages import Log
from engine.errors import NotAcceptableError
from engine.tables.error_classes import survey
from engine.tables.scores import without_forgotten
from engine.tables.shard_records import records_in

EXAMPLES = 3


def require_acceptable(campaign: Campaign, records: pa.Table, log: Log) -> None:
    """Raises NotAcceptableError if `score.max_bad_fraction` does not hold for the pool and for every shard, of which
    these are the records: RECORDS_SCHEMA.

    The quarantined items have then been logged, by kind with examples.
    """
    most, folder = campaign.config.score.max_bad_fraction, campaign.stage("quarantine")
    listed_N, bad_N = records["listed"].to_numpy(), _num_bad(records)
    listed, quarantined = int(listed_N.sum()), int(bad_N.sum())
    # A single bad item is accepted even in a small shard.
    is_bad_N = (bad_N > most * listed_N) & ((bad_N > 1) | pc.not_equal(records["failure"], "").to_numpy())
    bad = sorted(records["shard"].filter(pa.array(is_bad_N)).to_pylist())
    if quarantined <= most * listed and not bad:
        return
    for found in survey(folder, list(records_in(damaged_in(records))), EXAMPLES):
        log(f"{found.items:,} x {found.name}")
        for row in found.examples:
            where = f"{row['shard']} {row['key']} at byte {row['offset']}" if row["key"] else row["shard"]
            log(f"    {where}: {row['message']}")
    where = f", too many in {len(bad):,} of {len(records):,} shards: {', '.join(bad[:EXAMPLES])}" if bad else ""
    where += ", ..." if len(bad) > EXAMPLES else ""
    raise NotAcceptableError(
        f"{quarantined:,} of {listed:,} items ({quarantined / listed:.1%}) are quarantined{where}; "
        f"score.max_bad_fraction={most:g} is the limit for the pool and for each shard; see {folder}, fix the shards "
        "and run again, or accept the loss: --set score.max_bad_fraction=1"
    )


def _num_bad(records: pa.Table) -> NDArray[np.int64]:
    """The damaged items of each shard (N,): the quarantined ones that no person forgot."""
    bad_N: NDArray[np.int64] = records["quarantined"].to_numpy().copy()
    for number, record in zip(np.flatnonzero(bad_N), records_in(damaged_in(records)), strict=True):
        bad_N[number] -= without_forgotten(record.errors)[1]
    return bad_N
