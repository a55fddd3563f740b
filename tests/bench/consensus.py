"""How often each method of consensus is right, beside crowd-kit, and what a million items cost.

    python tests/bench/consensus.py [small|large]

Crowds: 2,000 items of 5 classes with 3 votes each, of 12 annotators whose accuracies are drawn from 0.6 to 0.95, and
whose errors are uniform; means over 10 crowds (small: 2). "right" is the share of items whose class is the true one,
"says" the mean probability of the class that is chosen, "but 0" the share that is right of the items that are not of
class 0. Likewise with 1 to 5 votes each, where every error is for the next class, and where nine items of ten are of
class 0. crowd-kit runs in its own environment (make peer-crowd-kit); without it, a line says so.

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
from typing import Any

import numpy as np
from measure import is_small, machine, resident_bytes, result_of, start_fresh
from numpy.typing import NDArray

from tests.crowds import crowd
from tests.peers.crowd_kit import crowd_kit
from tests.peers.environments import python_of
from vaal.consensus import CONSENSUS, Consensus, Votes

NUM_CLASSES = 5
CROWDS = (("even", 3), ("even", 1), ("even", 2), ("even", 5), ("next class", 3), ("nine of ten", 3), ("nine of ten", 2))


def consensus(method: str, votes: Votes) -> Consensus:
    found: Consensus = pkgutil.resolve_name(CONSENSUS[method].function)(votes)
    return found


def confused(votes: Votes, class_N: NDArray[np.int64]) -> Votes:
    """The same votes, but each wrong one is for the class after the true one."""
    truth_V = class_N[votes.item_V]
    return votes._replace(class_V=np.where(votes.class_V == truth_V, truth_V, (truth_V + 1) % NUM_CLASSES))


def compare(kind: str, num_votes: int, num_crowds: int, folder: Path) -> None:
    rows, common = dict[tuple[str, str], list[tuple[float, ...]]](), 0.9 if kind == "nine of ten" else None
    for seed in range(num_crowds):
        class_N, _, votes = crowd(2000, 12, num_votes, NUM_CLASSES, seed=seed, common=common)
        votes = confused(votes, class_N) if kind == "next class" else votes
        theirs = crowd_kit(votes, folder, with_alpha=False) if python_of("crowd-kit").exists() else {}

        def add(method: str, where: str, found: tuple[Any, Any], seconds: float, class_N: Any = class_N) -> None:
            is_right = found[0] == class_N
            row = is_right.mean(), found[1].mean(), is_right[class_N > 0].mean(), seconds
            rows.setdefault((method, where), []).append(row)

        for method in CONSENSUS:
            begin = time.perf_counter()
            found = consensus(method, votes)
            add(method, "here", found[:2], time.perf_counter() - begin)
            if theirs:
                p_NC = theirs[f"{method}_probability"]
                add(method, "crowd-kit", (p_NC.argmax(axis=1), p_NC.max(axis=1)), float(theirs[f"{method}_seconds"]))
    print(f"{kind}, {num_votes} votes each; means of {num_crowds}")
    for (method, where), values in rows.items():
        right, says, rare, seconds = (statistics.mean(column) for column in zip(*values, strict=True))
        print(
            f"  {method:12} {where:10} right {right:.3f}   says {says:.3f}   but 0 {rare:.3f}   {seconds:.4f} s",
            flush=True,
        )


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
        for kind, num_votes in CROWDS[:1] if is_small() else CROWDS:
            compare(kind, num_votes, num_crowds, Path(folder))
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
