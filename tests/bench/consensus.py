"""How often each method of consensus is right, beside crowd-kit, and what a million items cost.

    python tests/bench/consensus.py [small|large]

Crowds: 2,000 items of 5 classes with 3 votes each, of 12 annotators whose accuracies are drawn from 0.6 to 0.95, and
whose errors are uniform; means over 10 crowds (small: 2). "right" is the share of items whose class is the true one,
"says" the mean probability of the class that is chosen. Likewise with 1 to 5 votes each, and where annotators confuse
neighbouring classes. crowd-kit runs in its own environment (make peer-crowd-kit); without it, a line says so.

Cost: seconds of the clock and peak memory of a fresh process, whose votes are there before: 1,000,000 items (small:
50,000) with 3 votes each, of 1,000 annotators, and 10 or 1,000 classes. `dawid_skene` has no 1,000 classes: so many
error rates are refused.
"""

import json
import pkgutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import is_small, machine, resident_bytes, result_of, start_fresh
from numpy.typing import NDArray

from tests.crowds import crowd
from tests.peers.crowd_kit import crowd_kit
from tests.peers.environments import python_of
from vaal.consensus import CONSENSUS, Consensus, Votes

NUM_CLASSES = 5


def consensus(method: str, votes: Votes) -> Consensus:
    found: Consensus = pkgutil.resolve_name(CONSENSUS[method].function)(votes)
    return found


def confused(votes: Votes, class_N: NDArray[np.int64]) -> Votes:
    """The same votes, but each wrong one is for the class after the true one."""
    truth_V = class_N[votes.item_V]
    return votes._replace(class_V=np.where(votes.class_V == truth_V, truth_V, (truth_V + 1) % NUM_CLASSES))


def compare(num_votes: int, num_crowds: int, *, confuse: bool, folder: str) -> None:
    has_peer, rows = python_of("crowd-kit").exists(), dict[tuple[str, str], list[tuple[float, float, float]]]()
    for seed in range(num_crowds):
        class_N, _, votes = crowd(2000, 12, num_votes, NUM_CLASSES, seed=seed)
        votes = confused(votes, class_N) if confuse else votes
        theirs = crowd_kit(votes, Path(folder), with_alpha=False) if has_peer else {}
        for method in CONSENSUS:
            begin = time.perf_counter()
            found = consensus(method, votes)
            row = (found.class_N == class_N).mean(), found.probability_N.mean(), time.perf_counter() - begin
            rows.setdefault((method, "here"), []).append(row)
            if has_peer:
                probability_NC = theirs[f"{method}_probability"]
                is_right = (probability_NC.argmax(axis=1) == class_N).mean()
                row = is_right, probability_NC.max(axis=1).mean(), float(theirs[f"{method}_seconds"])
                rows.setdefault((method, "crowd-kit"), []).append(row)
    print(f"{num_votes} votes each{', neighbouring classes confused' if confuse else ''}; means of {num_crowds}")
    for (method, where), found in rows.items():
        right, says, seconds = (statistics.mean(column) for column in zip(*found, strict=True))
        print(f"  {method:12} {where:10} right {right:.4f}   says {says:.4f}   {seconds:8.4f} s", flush=True)


def child_main(method: str, num_items: str, num_classes: str) -> None:
    class_N, _, votes = crowd(int(num_items), 1000, 3, int(num_classes))
    before, begin = resident_bytes(), time.perf_counter()
    found = consensus(method, votes)
    seconds, peak = time.perf_counter() - begin, resident_bytes(peak=True)
    right = float((found.class_N == class_N).mean())
    print(json.dumps({"seconds": seconds, "before": before, "peak": peak, "right": right}))


def main() -> None:
    print(machine(), flush=True)
    num_crowds, num_items = (2, 50_000) if is_small() else (10, 1_000_000)
    if not python_of("crowd-kit").exists():
        print("without crowd-kit: run make peer-crowd-kit")
    with tempfile.TemporaryDirectory() as folder:
        for num_votes, confuse in (
            ((3, False),) if is_small() else ((1, False), (2, False), (3, False), (5, False), (3, True))
        ):
            compare(num_votes, num_crowds, confuse=confuse, folder=folder)
    for num_classes, methods in ((10, tuple(CONSENSUS)), (1000, ("majority", "one_coin"))):
        for method in methods:
            found = result_of(start_fresh(__file__, "child", method, str(num_items), str(num_classes)))
            print(
                f"{num_items:,} items of {num_classes} classes: {method:12} {found['seconds']:6.2f} s   "
                f"{found['peak'] / 2**20:.0f} MiB ({found['before'] / 2**20:.0f} before)   right {found['right']:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    child_main(*sys.argv[2:]) if sys.argv[1:2] == ["child"] else main()
