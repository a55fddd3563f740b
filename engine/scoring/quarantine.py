"""Whether too many items are quarantined."""

from engine.campaign.folder import Campaign
from engine.campaign.stages import Log
from engine.errors import NotAcceptableError
from engine.tables.error_classes import survey
from engine.tables.scores import ShardRecord, without_forgotten

EXAMPLES = 3


def require_acceptable(campaign: Campaign, committed: dict[str, ShardRecord], log: Log) -> None:
    """Raises NotAcceptableError if `score.max_bad_fraction` does not hold for the pool and for every shard.

    The quarantined items have then been logged, by kind with examples.
    """
    most, folder = campaign.config.score.max_bad_fraction, campaign.stage("quarantine")
    listed = sum(record.listed for record in committed.values())
    bad_in = {shard: _num_bad(record) for shard, record in committed.items()}
    quarantined = sum(bad_in.values())
    exceeding = {shard: record for shard, record in committed.items() if bad_in[shard] > most * record.listed}
    # A single bad item is accepted even in a small shard.
    bad = sorted(shard for shard, record in exceeding.items() if bad_in[shard] > 1 or record.failure)
    if quarantined <= most * listed and not bad:
        return
    for found in survey(folder, committed.values(), EXAMPLES):
        log(f"{found.items:,} x {found.name}")
        for row in found.examples:
            where = f"{row['shard']} {row['key']} at byte {row['offset']}" if row["key"] else row["shard"]
            log(f"    {where}: {row['message']}")
    where = f", too many in {len(bad):,} of {len(committed):,} shards: {', '.join(bad[:EXAMPLES])}" if bad else ""
    where += ", ..." if len(bad) > EXAMPLES else ""
    raise NotAcceptableError(
        f"{quarantined:,} of {listed:,} items ({quarantined / listed:.1%}) are quarantined{where}; "
        f"score.max_bad_fraction={most:g} is the limit for the pool and for each shard; see {folder}, fix the shards "
        "and run again, or accept the loss: --set score.max_bad_fraction=1"
    )


def _num_bad(record: ShardRecord) -> int:
    return record.quarantined - without_forgotten(record.errors)[1]
