"""Whether too much is in quarantine, and a table of what is there."""

from typing import NamedTuple

from engine.campaign.folder import Campaign, Report
from engine.errors import NotAcceptableError
from engine.scoring.drafts import Committed, count_errors

EXAMPLES = 3


class ErrorClass(NamedTuple):
    """Quarantined items that failed alike: "stage/error", how many they are, and a few of them, a line each."""

    name: str
    items: int
    examples: list[str]


def survey(campaign: Campaign, committed: dict[str, Committed]) -> list[ErrorClass]:
    """What is in quarantine, the most frequent class first. Reads as few files as give `EXAMPLES` of each."""
    totals = count_errors(committed.values())
    examples: dict[str, list[str]] = {name: [] for name in totals}
    for _, ledger in sorted(committed.items()):
        if any(len(examples[name]) < EXAMPLES for name in ledger.errors):
            for row in (campaign.stage("quarantine") / ledger.file).read_table().to_pylist():
                found = examples[f"{row['stage']}/{row['error']}"]
                if len(found) < EXAMPLES:
                    where = f"{row['shard']} {row['key']} at byte {row['offset']}" if row["key"] else row["shard"]
                    found.append(f"{where}: {row['message']}")
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [ErrorClass(name, count, examples[name]) for name, count in ordered]


def require_acceptable(campaign: Campaign, committed: dict[str, Committed], report: Report) -> None:
    """Return when `score.max_bad_fraction` holds for the pool and for every shard.

    Raises:
        NotAcceptableError: it does not; what is in quarantine has been reported.
    """
    most = campaign.config.score.max_bad_fraction
    listed = sum(ledger.listed for ledger in committed.values())
    quarantined = sum(ledger.quarantined for ledger in committed.values())
    bad = sorted(shard for shard, ledger in committed.items() if _is_bad(ledger, most))
    if quarantined <= most * listed and not bad:
        return
    for found in survey(campaign, committed):
        report(f"{found.items:,} x {found.name}")
        for example in found.examples:
            report(f"    {example}")
    where = f", too many in {len(bad):,} of {len(committed):,} shards: {', '.join(bad[:EXAMPLES])}" if bad else ""
    where += ", ..." if len(bad) > EXAMPLES else ""
    raise NotAcceptableError(
        f"{quarantined:,} of {listed:,} items ({quarantined / listed:.1%}) are quarantined{where}; "
        f"score.max_bad_fraction={most:g} is the most for the pool and for a shard; see "
        f"{campaign.stage('quarantine')}, mend the shards and run again, or accept the loss: "
        "--set score.max_bad_fraction=1"
    )


def _is_bad(ledger: Committed, most: float) -> bool:
    # One bad item alone condemns no shard, however small.
    return ledger.quarantined > most * ledger.listed and (ledger.quarantined > 1 or bool(ledger.failure))
