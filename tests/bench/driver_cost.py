"""What the one driver of a scoring run can take in, and so how many actors it feeds.

    python tests/bench/driver_cost.py [small]

Real result rows, as `Scorer.score_chunk` makes them of CIFAR-10's images with the default networks: chunks of 2,048
items and of 64, for shards of 1,000 and of 10,000 items (small: 1,000 and 4,000). The driver's own part runs on them
without Ray, under the names of many shards: `_commit` of `engine.scoring` on the local disk, the ledger, the progress.
What Ray Data's threads in the driver take besides is not in it. CPU seconds are those of all threads of the process;
items/s are by the clock. The kinds take turns for five rounds (small: 2); figures are medians.

Needs CIFAR-10's shards below VAAL_DATA, else ../shared/data; says so and ends where they are absent.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from measure import cifar10_shards, end_on_sigterm, is_small, machine
from pools import trained_campaign

from engine.campaign.folder import Campaign
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.stages import QUIET
from engine.config.input_options import ImageConfig
from engine.pool.items import Item, read_shard
from engine.pool.manifest import list_shards
from engine.pool.shard import Shard
from engine.pool.shards import Shards
from engine.pool.sight import Sight
from engine.scoring.chunks import Chunk
from engine.scoring.resume import Ledger, ScoringPlan
from engine.scoring.score import _commit, _counted
from engine.scoring.scorer import Scorer, load_scorer
from engine.scoring.tally import Tally
from engine.tables.shard_records import RECORDS_SCHEMA

CHUNK_ITEMS = (2048, 64)
SHARD_ITEMS = {True: (1000, 4000), False: (1000, 10_000)}
TOTAL_ITEMS = {True: 8000, False: 300_000}
ACTOR_RATES = (3_000, 10_000, 50_000)
"""Items/s of an actor: a core, and GPUs."""


class Cost(NamedTuple):
    chunks: int
    items: int
    seconds: float
    cpu_seconds: float


def result_rows(scorer: Scorer, items: list[Item], chunk_items: int) -> list[pa.Table]:
    """A shard of these items as the driver receives it, in chunks of so many."""
    rows, sight = [], Sight(ImageConfig())
    see = sight.all_of(Shard("", "", 0, "", None))
    for number, begin in enumerate(range(0, len(items), chunk_items)):
        part = items[begin : begin + chunk_items]
        chunk = Chunk("", number, sight, 2)
        for position, item in enumerate(part, begin):
            # Keys are those of one shard, so that they compress as well as those.
            chunk.add(item._replace(key=f"cifar10-train-{position:06d}"), see)
        is_last = begin + chunk_items >= len(items)
        rows.append(scorer.score_chunk(chunk.row(1000 * len(part), listed=len(items) if is_last else -1)))
    return rows


def renamed(rows: list[pa.Table], shards: Shards) -> Iterator[pa.Table]:
    """The rows once for every shard."""
    for shard in shards:
        for row in rows:
            yield row.set_column(0, "shard", [[shard.shard]])


def take_in(campaign: Campaign, rows: list[pa.Table], shard_items: int, total: int, run: str) -> Cost:
    """The driver's part of scoring `total` items, as `engine.scoring.score.score` does it."""
    numbers = range(total // shard_items)
    shards = Shards.of(Shard(f"{run}-{n:06d}.tar", "", 1000 * shard_items, "", None) for n in numbers)
    plan = ScoringPlan(shards, run, RECORDS_SCHEMA.empty_table(), shards)
    tally, items = Tally(shards.num_bytes, len(shards), plan.committed), 0
    ledger = Ledger(campaign.stage("ledger"))
    begin, cpu_begin = time.perf_counter(), time.process_time()
    for record in _commit(campaign, plan, _counted(renamed(rows, shards), tally, QUIET)):
        items += record.scored
        ledger.add(record)
        tally.add_shard(record)
        tally.in_words()
    ledger.close()
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    assert items == len(shards) * shard_items
    for name in campaign.stage("scores").children():
        (campaign.stage("scores") / name).delete()
    return Cost(len(rows) * len(shards), items, seconds, cpu_seconds)


def tell(name: str, costs: list[Cost]) -> None:
    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    rate = median(cost.items / cost.seconds for cost in costs)
    chunk_rate = median(cost.chunks / cost.seconds for cost in costs)
    per_chunks = median(1e3 * cost.cpu_seconds / cost.chunks for cost in costs)
    per_items = median(1e6 * cost.cpu_seconds / cost.items for cost in costs)
    feeds = "".join(f"{rate / actor:>9,.0f}" for actor in ACTOR_RATES)
    print(f"{name:<34}{chunk_rate:>9,.0f}{rate:>11,.0f}{per_chunks:>14.2f}{per_items:>13.1f}{feeds}")


def main() -> None:
    end_on_sigterm()
    sources = cifar10_shards()
    if not sources:
        print("not measured: no cifar10/train-*.tar below VAAL_DATA or ../shared/data")
        return
    # The engine gives torch a column of Arrow's, which is read-only, as it may.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    small = is_small()
    num_rounds, total = (2 if small else 5), TOTAL_ITEMS[small]
    print(f"{machine()}; {num_rounds} rounds of {total:,} items of each kind")
    listed = list_shards([str(file) for file in sources], "")[0]
    with tempfile.TemporaryDirectory() as folder:
        campaign = trained_campaign(Path(folder) / "campaign", sources[:1], {"pool.root": str(sources[0].parent)})
        weights = read_manifest(campaign, "train", TrainManifest)["files"]
        scorer = load_scorer(campaign.stage("train"), campaign.config, weights, "cpu")
        images = chain.from_iterable(read_shard(shard, campaign.config.image) for shard in listed)
        items = list(islice(images, max(SHARD_ITEMS[small])))
        rows = {
            (chunk_items, shard_items): result_rows(scorer, items[:shard_items], chunk_items)
            for chunk_items in CHUNK_ITEMS
            for shard_items in SHARD_ITEMS[small]
        }
        costs: dict[tuple[int, int], list[Cost]] = {kind: [] for kind in rows}
        for number in range(num_rounds):
            for kind, tables in rows.items():
                costs[kind].append(take_in(campaign, tables, kind[1], total, f"run-{number}-{kind[0]}-{kind[1]}"))
    feeds = "".join(f"{f'{rate:,}/s':>9}" for rate in ACTOR_RATES)
    print(f"{'':<34}{'':>9}{'':>11}{'CPU seconds':>27}  feeds actors of")
    print(f"{'':<34}{'chunks/s':>9}{'items/s':>11}{'1,000 chunks':>14}{'10^6 items':>13}{feeds}")
    for (chunk_items, shard_items), found in costs.items():
        tell(f"chunks of {min(chunk_items, shard_items):,}, shards of {shard_items:,}", found)


if __name__ == "__main__":
    main()
