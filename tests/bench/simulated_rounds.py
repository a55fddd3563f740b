"""What a simulated round costs, and which part of it is the bare mathematics: CPU seconds, in one run.

    python tests/bench/simulated_rounds.py [small]

CIFAR-10's embeddings, 16,000 items, 1,000 first labels that lack 5 of 10 classes: the strategies `random` and `default`
(completion, else the margin of a linear head) with two seeds, 3 rounds of 500, three task models (small: 3,000 items,
200 labels, 2 rounds of 100). Each measurement is a fresh process with one thread:

- whole: `vaal simulate` with one worker, from the start of its process to the end of all of them
- parts: the same trials in one process, whose functions are timed where the rounds call them
- bare: the parts that are mathematics, which a loop on arrays would call too: fits, centres, scores, the gate's test,
  the task models. The rest is files and tables. The first round of a seed is
  trained once for both strategies

Needs the embeddings below VAAL_DATA, else ../shared/data; says so and ends where they are absent.
"""

import json
import os
import pkgutil
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import ROOT, cifar10_shards, end_on_sigterm, is_small, machine, result_of, start_fresh

SIZES = {"large": (16_000, 1000, 500, 3), "small": (3000, 200, 100, 2)}
SEEDS = 2
EXPERIMENT = """
rounds = {rounds}
budget = {budget}
seeds = {seeds}
tasks = ["linear", "mlp", "knn"]

[pool]
embeddings = "${{VAAL_DATA}}/cifar10-embeddings/train.parquet"
size = {items}

[oracle]
labels = "${{VAAL_DATA}}/cifar10/train-oracle.parquet"

[test]
size = 4000

[first_labels]
kind = "biased"
count = {labels}
missing = 5

[[strategies]]
name = "random"

[[strategies]]
name = "default"
train.task = "classification"
score.acquisition = ["vaal", "margin"]
"""
BARE = {
    "discriminators": "engine.models.fitting:refit",
    "linear head": "engine.models.fitting:fit_linear_head",
    "centres": "engine.models.fitting:make_centres",
    "scores": "engine.scoring.scorer:Scorer.__call__",
    "gate's test": "engine.selection.gate:deficit_of",
    "task models": "engine.simulation.trials:predict",
}
"""Mathematics, by the name that its caller has for it."""
AROUND = {
    "selection": "engine.simulation.trials:select",
    "scores' files": "engine.simulation.scratch:write_stages",
    "labels' files": "engine.simulation.scratch:Scratch.answer",
}
"""Files and tables, less the mathematics within."""


class Clock:
    """CPU seconds of functions, less those of timed functions that they call."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    def time(self, name: str, place: str) -> None:
        module, _, path = place.partition(":")
        *owners, attribute = path.split(".")
        owner = pkgutil.resolve_name(f"{module}:{'.'.join(owners)}" if owners else module)
        setattr(owner, attribute, self._timed(name, getattr(owner, attribute)))

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            begin = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*args, **options)
            finally:
                spent = time.process_time() - begin
                self.seconds[name] += spent - self._inner.pop()
                self._inner[-1] += spent

        return timed


def parts_main(file: str, folder: str) -> None:
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from engine.simulation.experiment import read_experiment
    from engine.simulation.learners import LEARNERS
    from engine.simulation.trial_campaign import ground_of
    from engine.simulation.trials import play, trials_of
    from engine.simulation.worlds import load
    from engine.storage.location import Location

    torch.set_num_threads(1)
    threadpool_limits(1)
    # As the processes of a simulation do.
    os.fsync = lambda fd: None
    experiment = read_experiment(file)
    world = load(experiment)
    few = np.eye(20, 128, dtype=np.float32), np.arange(20) % 2
    for task in experiment.tasks:
        # What the libraries load at their first use is no part of a round.
        pkgutil.resolve_name(LEARNERS[task].function)(*few, few[0], 2, 0)
    clock, seconds, parts = Clock(), Counter[str](), dict[str, Counter[str]]()
    for name, place in (BARE | AROUND).items():
        clock.time(name, place)
    for trial in trials_of(experiment, world, Location.of(folder)):
        ground = ground_of(world, experiment, trial.seed, trial.first_folder)
        clock.seconds.clear()
        begin = time.process_time()
        play(trial, experiment, ground, lambda: None)
        seconds[trial.strategy] += time.process_time() - begin
        parts.setdefault(trial.strategy, Counter()).update(clock.seconds)
    print(json.dumps({"seconds": seconds, "parts": parts}))


def whole_seconds(file: str, folder: str) -> float:
    """CPU seconds of the command and its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["-m", "jobs", "simulate", file, "--out", folder, "--workers", "1"]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    end_on_sigterm()
    # It sets VAAL_DATA too.
    if not cifar10_shards():
        print("not measured, for lack of CIFAR-10's embeddings below VAAL_DATA or ../shared/data")
        return
    size = "small" if is_small() else "large"
    items, labels, budget, rounds = SIZES[size]
    print(f"{machine()}; {items:,} items, {rounds} rounds of {budget}", flush=True)
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "experiment.toml"
        file.write_text(EXPERIMENT.format(items=items, labels=labels, budget=budget, rounds=rounds, seeds=SEEDS))
        found = result_of(start_fresh(__file__, "parts", str(file), f"{home}/parts"))
        whole = whole_seconds(str(file), f"{home}/whole")
    bare, made = 0.0, SEEDS * rounds
    for strategy, total in found["seconds"].items():
        parts = found["parts"][strategy]
        bare += (own := sum(parts.get(name, 0.0) for name in BARE))
        print(f"\n{strategy}: {total:.2f} CPU s, {total / made:.2f} a round, {own / total:.0%} of it bare mathematics")
        for name in [*BARE, *AROUND]:
            if name in parts:
                print(f"  {name:<16}{parts[name]:7.2f} s {parts[name] / total:6.0%}")
        print(f"  {'the rest':<16}{total - sum(parts.values()):7.2f} s")
    inside = sum(found["seconds"].values())
    print(f"\nbare mathematics {bare:.2f} CPU s; the same trials {inside:.2f} s, {inside / bare:.2f} times that")
    print(f"the command, with the start of its processes and the report, {whole:.2f} s, {whole / bare:.2f} times that")


if __name__ == "__main__":
    if sys.argv[1:2] == ["parts"]:
        parts_main(*sys.argv[2:4])
    else:
        main()
