"""Seconds and memory in which a killed run over a million shards finds out what is left to do.

    python tests/bench/resume_planning.py [small]

A campaign of 1,000,000 shards (small: 20,000) on the local disk, in folders of 10,000: empty files, for planning looks
at names, sizes and times alone. Every second shard is committed: an empty file of its name in scores/, and an entry in
one of 500 ledger files, as if so many runs had written them. `make_plan` is timed in a fresh process, from the call to
the plan, with its highest resident memory; then its parts one by one in the same process. Files that were just made
are still in the memory of the operating system: from a cold disk, or an object store, listing takes longer.

Targets: 60 s and 2 GiB for a million shards. Everything is deleted at the end.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import end_on_sigterm, is_small, machine, resident_bytes, result_of, start_fresh

from engine.campaign.changes import file_name
from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.config.options import CampaignConfig
from engine.pool.manifest import look_up, new_version, read_shards, write_shards
from engine.pool.shard import Shard
from engine.scoring.resume import Ledger, make_plan
from engine.storage.location import Location
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import read_ledger

TARGET_SECONDS, TARGET_BYTES = 60, 2 << 30
SHARDS_PER_FOLDER = 10_000
NUM_FLUSHES = 500
INPUTS = {"vae.safetensors": "1" * 64, "settings": "2" * 64, "code": "3" * 64}


def campaign_in(folder: str) -> Campaign:
    return Campaign(Location(f"{folder}/campaign"), CampaignConfig(), 0)


def touch(file: str) -> int:
    """Make an empty file. Returns its time, nanoseconds."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def make_pool(folder: str, num_shards: int) -> list[Shard]:
    shards = []
    for number in range(num_shards):
        name = f"{number // SHARDS_PER_FOLDER:04d}/train-{number:07d}.tar"
        file = f"{folder}/pool/{name}"
        if number % SHARDS_PER_FOLDER == 0:
            Path(file).parent.mkdir(parents=True)
        time_ns = touch(file)
        shards.append(new_version(Shard(name, file, 0, f"mtime:{time_ns}", None, time_ns)))
    return shards


def commit_half(campaign: Campaign, shards: list[Shard]) -> None:
    """Every second shard's file of scores, and the ledger."""
    scores, key = Path(campaign.stage("scores").path), fingerprint(**INPUTS)
    scores.mkdir(parents=True)
    ledger, per_flush = Ledger(campaign.stage("ledger")), max(1, len(shards) // 2 // NUM_FLUSHES)
    for number, shard in enumerate(shards[::2]):
        file = file_name(shard, key)
        touch(f"{scores}/{file}")
        sha256 = hashlib.sha256(file.encode()).hexdigest()
        ledger.add(ShardRecord(shard.shard, file, 1000, 999, 1, sha256, 0, "", {"decode/CutOff": 1}))
        if (number + 1) % per_flush == 0:
            ledger.close()
    ledger.close()


def plan_main(folder: str) -> None:
    """In a process of its own: prints what planning takes, as JSON."""
    campaign, before = campaign_in(folder), resident_bytes()
    begin = time.perf_counter()
    plan = make_plan(campaign, INPUTS, lambda _: None)
    seconds, peak = time.perf_counter() - begin, resident_bytes(peak=True)
    found = {"shards": len(plan.shards), "committed": len(plan.committed), "todo": len(plan.todo)}
    del plan
    shards = read_shards(campaign.home)
    key = fingerprint(**INPUTS)
    parts: dict[str, Callable[[], Any]] = {
        "read shards.parquet": lambda: read_shards(campaign.home),
        "list the pool": lambda: look_up(shards),
        "name the files": lambda: [file_name(shard, key) for shard in shards],
        "list the scores": lambda: campaign.stage("scores").children(),
        "read the ledger": lambda: list(read_ledger(campaign.stage("ledger"))),
    }
    timed = {}
    for name, part in parts.items():
        begin = time.perf_counter()
        part()
        timed[name] = time.perf_counter() - begin
    print(json.dumps({**found, "before": before, "seconds": seconds, "peak": peak, "parts": timed}))


def main() -> None:
    end_on_sigterm()
    num_shards = 20_000 if is_small() else 1_000_000
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        shards = make_pool(folder, num_shards)
        campaign = campaign_in(folder)
        write_shards(campaign.home, shards)
        commit_half(campaign, shards)
        del shards
        print(f"{num_shards:,} shards made in {time.perf_counter() - begin:.0f} s", flush=True)
        found = result_of(start_fresh(__file__, "plan", folder))
    assert (found["shards"], found["committed"], found["todo"]) == (num_shards, num_shards // 2, num_shards // 2)
    seconds, peak = found["seconds"], found["peak"]
    print(f"plan: {seconds:.1f} s, peak {peak / 2**20:,.0f} MiB ({found['before'] / 2**20:,.0f} MiB before)")
    for name, part in found["parts"].items():
        print(f"  {name:<20}{part:7.2f} s")
    if is_small():
        print(f"targets: {TARGET_SECONDS} s and {TARGET_BYTES / 2**30:.0f} GiB for 1,000,000 shards; these are fewer")
        return
    for what, is_met in (("60 s", seconds <= TARGET_SECONDS), ("2 GiB", peak <= TARGET_BYTES)):
        print(f"target: {what}: {'met' if is_met else 'MISSED'}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["plan"]:
        plan_main(sys.argv[2])
    else:
        main()
