"""Images per second of `vaal score` beside a lean PyTorch loop, and beside what else one might write, in one run.

    python tests/bench/score_throughput.py [small] [--pool cifar10|photos64|photos224] [--network default|pixels]
                                           [--items N] [--rounds N] [--workers N[,N]] [--rivals]

Pools: CIFAR-10's shards of 1,000 at 32 px, or the photographs' shards of 100 at 64 or 224 px, under as many names as
make up the items: 500,000 of CIFAR-10 or 2,000 photographs (small: 8,000 or 400). Networks: the default ones, or those
of train.method=pixels, which leave more of the time to everything else. Needs the shards below VAAL_DATA, else
../shared/data; says so and ends where they are absent.

Variants take turns for five rounds (small: 2), each in a fresh process, two processes or threads for the networks:

    lean          two processes, one thread and half of the shards each: the engine's reader and decoder, the networks,
                  batches and malloc of the product; no checks, no hashes, no output. From when both are ready to when
                  the last ends
    bare          the same by tarfile, in batches of 16, with the malloc that there is
    vaal          the score stage. Steady: from a tenth of the items to the last; whole: from before the process starts,
                  with its imports and a private Ray, to the manifest, Ray shut down
    ray.data      read_webdataset with its own decoder, an actor pool of two, write_parquet; at most 50,000 items
    webdataset    webdataset and a DataLoader of two workers, the networks in the main process; at most 50,000 items
    bare, Pillow  the bare loop that decodes at full size by Pillow; at most 50,000 items

A figure is the median over the rounds; a ratio that of the ratios of the same round. With --workers 1,2 the first three
variants run with each number of processes, and the efficiency is the items/s of n over n times those of the first.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import score_variants
from measure import cifar10_shards, end_on_sigterm, machine, photo_shards, result_of, start_fresh
from pools import repeated, trained_campaign
from score_variants import Spec

RIVALS = ("ray.data", "webdataset", "bare, Pillow")
MOST_RIVAL_ITEMS = 50_000
STEADY_TARGET = 0.95
WHOLE_TARGETS = {3_000_000: 0.90, 500_000: 0.75}
"""By the items from which on they are for."""
ENOUGH_SHARDS = 20
RIVAL_TARGETS = {"ray.data": 1.5, "webdataset": 1.0, "bare, Pillow": 1.0}


class Pool(NamedTuple):
    shards: Callable[[], list[Path]]
    items_per_shard: int
    side: int
    items: int
    small_items: int


POOLS = {
    "cifar10": Pool(cifar10_shards, 1000, 32, 500_000, 8000),
    "photos64": Pool(photo_shards, 100, 64, 2000, 400),
    "photos224": Pool(photo_shards, 100, 224, 2000, 400),
}
NETWORKS: dict[str, dict[str, Any]] = {"default": {}, "pixels": {"train.method": "pixels"}}


class Job(NamedTuple):
    """A variant with a number of processes, on so many shards."""

    variant: str
    workers: int
    num_shards: int


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("size", nargs="?", choices=("small", "large"), default="large")
    parser.add_argument("--pool", choices=POOLS, default="cifar10")
    parser.add_argument("--network", choices=NETWORKS, default="default")
    parser.add_argument("--items", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--workers", type=lambda text: [int(word) for word in text.split(",")], default=[2])
    parser.add_argument("--rivals", action="store_true")
    return parser.parse_args()


def jobs(given: argparse.Namespace) -> dict[str, Job]:
    """What takes turns, by name."""
    pool = POOLS[given.pool]
    items = given.items or (pool.items if given.size == "large" else pool.small_items)
    count, rival = (max(2, number // pool.items_per_shard) for number in (items, min(items, MOST_RIVAL_ITEMS)))
    found = {}
    for variant in ("lean", "bare", "vaal"):
        for workers in given.workers:
            name = variant if len(given.workers) == 1 else f"{variant} x {workers}"
            found[name] = Job(variant, workers, count)
    if given.rivals:
        found |= {variant: Job(variant, given.workers[0], rival) for variant in RIVALS}
    return found


def measured(job: Job, files: list[Path], settings: dict[str, Any], folder: Path) -> dict[str, float]:
    """What a fresh process of the variant found. `folder` holds the trained campaign, which is left as it is."""
    campaign, out, spec = folder / "copy", folder / "out", folder / "spec.json"
    shutil.copytree(folder / "campaign", campaign)
    names = [str(file) for file in files[: job.num_shards]]
    spec.write_text(json.dumps(Spec(names, settings, str(campaign), str(out), job.workers)._asdict()))
    try:
        return result_of(start_fresh(score_variants.__file__, job.variant, str(spec), str(time.monotonic())))
    finally:
        for made in (campaign, out):
            shutil.rmtree(made, ignore_errors=True)


Rates = dict[str, list[float]]


def measure_all(
    turns: dict[str, Job], files: list[Path], settings: dict[str, Any], folder: Path, num_rounds: int
) -> tuple[Rates, dict[str, int]]:
    """Items/s of every round and the number of items, by variant; what includes the start as "..., whole"."""
    rates: Rates = {}
    items = {}
    for number in range(1, num_rounds + 1):
        for name, job in turns.items():
            found = measured(job, files, settings, folder)
            both = {name: found["steady"]}
            if "whole" in found:
                both[f"{name}, whole"] = found["items"] / found["whole"]
            for kind, rate in both.items():
                rates.setdefault(kind, []).append(rate)
                items[kind] = int(found["items"])
            line = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in both.items())
            print(f"  round {number}, load {os.getloadavg()[0]:.1f}: {line}", flush=True)
    return rates, items


def over(rates: Rates, name: str, to: str) -> float:
    """The median over the rounds of the ratio of two variants' items/s."""
    return statistics.median(a / b for a, b in zip(rates[name], rates[to], strict=True))


def verdict(what: str, reached: float, target: float, note: str = "") -> None:
    outcome = "not measured, too few items" if math.isnan(reached) else "met" if reached >= target else "MISSED"
    print(f"target: {what}: {target:.2f}; reached {reached:.3f}: {outcome}{note}")


def tell(rates: Rates, items: dict[str, int], given: argparse.Namespace) -> None:
    is_one = len(given.workers) == 1
    last = given.workers[-1]
    lean, vaal = ("lean", "vaal") if is_one else (f"lean x {last}", f"vaal x {last}")
    print(f"{'variant':<22}{'items':>9}{'items/s':>9}{'to ' + lean:>14}")
    for name, found in rates.items():
        print(f"{name:<22}{items[name]:>9,}{statistics.median(found):>9,.0f}{over(rates, name, lean):>14.3f}")
    if not is_one:
        first = given.workers[0]
        for kind in ("lean", "bare", "vaal"):
            efficiency = over(rates, f"{kind} x {last}", f"{kind} x {first}") * first / last
            print(f"efficiency of {last} processes against {first}, {kind}: {efficiency:.3f}")
    num_shards = items[vaal] // POOLS[given.pool].items_per_shard
    if num_shards < ENOUGH_SHARDS:
        print(f"steady figures of {num_shards} shards say nothing: results come by the shard; {ENOUGH_SHARDS} suffice")
    verdict(f"{vaal}, steady, to {lean}", over(rates, vaal, lean), STEADY_TARGET)
    whole = f"{vaal}, whole"
    least = next((least for least in WHOLE_TARGETS if items[whole] >= least), min(WHOLE_TARGETS))
    note = "" if items[whole] >= least else f" (the target is for {least:,} items, these are {items[whole]:,})"
    verdict(f"{whole}, to {lean}", over(rates, whole, lean), WHOLE_TARGETS[least], note)
    for rival in RIVALS if given.rivals else ():
        verdict(f"{vaal}, steady, to {rival}", over(rates, vaal, rival), RIVAL_TARGETS[rival])
        whole_rival = f"{rival}, whole"
        if whole_rival in rates and items[whole_rival] == items[whole]:
            verdict(f"{whole}, to {whole_rival}", over(rates, whole, whole_rival), RIVAL_TARGETS[rival])


def main() -> None:
    given = options()
    pool = POOLS[given.pool]
    sources = pool.shards()
    if not sources:
        print(f"not measured: {given.pool}, for lack of its shards below VAAL_DATA or ../shared/data")
        return
    end_on_sigterm()
    turns, num_rounds = jobs(given), given.rounds or (5 if given.size == "large" else 2)
    print(f"{machine()}; {given.pool} at {pool.side} px, network {given.network}, {num_rounds} rounds")
    settings = {"image.size": pool.side, **NETWORKS[given.network]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = repeated(sources, max(job.num_shards for job in turns.values()), folder / "pool")
        trained_campaign(folder / "campaign", files, settings)
        tell(*measure_all(turns, files, settings, folder, num_rounds), given)


if __name__ == "__main__":
    main()
