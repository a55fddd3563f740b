"""A round on three nodes beside a private Ray of as many CPUs, and where the seconds of a start go.

    python tests/bench/cluster_round.py [small]

The nodes are raylets of this machine: a head without CPUs and two nodes of one each; the private Ray has two. Both run
`vaal round` on the same digits, with two workers in training and scoring; the driver's share is all that differs. The
seconds are between lines of the command's own JSON log. `start` is from the process's start to the first line of the
stage, `first` from there to its first step or item.
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from measure import is_small, machine

from tests.faults.campaigns import make_campaign, make_pool
from tests.faults.clusters import cluster
from tests.faults.driver import started

ROUNDS = 1 if is_small() else 3
SETTINGS = ("train.max_steps=100", "train.epochs=1000", "train.workers=2", "score.workers=2")
EAGER = "import jobs.terminal; jobs.terminal.PLAIN_SECONDS = 0.0; from jobs.__main__ import main; main()"
"""The command, which logs each step of its progress."""
STAGES = ("train", "score", "select", "export", "report")


def seconds_of(home: str, *words: str) -> dict[str, float]:
    """The seconds of a round's parts, by name."""
    command = [sys.executable, "-c", EAGER, "round", home, "--log-format", "json", *words]
    begun_at = time.time()
    with started(command, {}) as driver:
        ended = driver.wait(600)
    assert ended.status == 0, ended.errors
    lines = [json.loads(line) for line in ended.errors.splitlines() if line.startswith("{")]
    found = {"all": ended.seconds}
    for stage in STAGES:
        of_stage = [line for line in lines if line["stage"] == stage]
        begin = at(next(line for line in of_stage if line["event"] == "begin"))
        found[stage] = at(next(line for line in of_stage if line["event"] == "end")) - begin
        if stage == "train":
            found["start"] = begin - begun_at
        if firsts := [line for line in of_stage if line["event"] == "progress"]:
            found[f"{stage}: first"] = at(firsts[0]) - begin
    return found


def at(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def main() -> None:
    print(machine())
    taken: dict[str, list[dict[str, float]]] = {"private Ray": [], "three nodes": []}
    with tempfile.TemporaryDirectory() as name:
        pool = make_pool(Path(name) / "pool", 3)
        home = make_campaign(f"{name}/campaign", f"{pool.folder}/*.tar", pool.labels, *SETTINGS)
        with cluster([1, 1]) as nodes:
            # The first run on a cluster starts what later ones find.
            ways = {
                "warm-up": ["--address", nodes.address],
                "private Ray": [],
                "three nodes": ["--address", nodes.address],
            }
            for number in range(ROUNDS):
                for way, words in ways.items():
                    if way == "warm-up" and number:
                        continue
                    copy = f"{name}/{way.replace(' ', '-')}-{number}"
                    shutil.copytree(home, copy)
                    taken.setdefault(way, []).append(seconds_of(copy, *words))
    print("\n| part | private Ray, s | three nodes, s | ratio |\n|---|---|---|---|")
    for part in taken["private Ray"][0]:
        one, two = (statistics.median(run[part] for run in taken[way]) for way in ("private Ray", "three nodes"))
        print(f"| {part} | {one:.1f} | {two:.1f} | {two / one:.2f} |")


if __name__ == "__main__":
    main()
