"""What the programs of this folder share. Importing it lets a program that is run by its path import `tests`."""

import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def is_small() -> bool:
    """Whether the quick variant is asked for."""
    return "small" in sys.argv[1:]


def machine() -> str:
    return f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch, load {os.getloadavg()[0]:.1f}"


def cifar10_shards() -> list[Path]:
    """CIFAR-10's training shards below VAAL_DATA, else ../shared/data; none where they are absent."""
    data = Path(os.environ.setdefault("VAAL_DATA", str(ROOT.parent / "shared/data")))
    return sorted((data / "cifar10").glob("train-*.tar"))


def resident_bytes(*, peak: bool = False) -> int:
    """This process's memory, now or at most so far. (getrusage's peak begins with that of the parent.)"""
    found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def interleaved(
    steps: dict[str, Callable[[], None]], *, num_rounds: int, block: int, skipped: int = 1
) -> dict[str, list[float]]:
    """The median seconds of a step, by name, one for every round.

    A round is a block of steps of each kind, one kind after another, so that whatever else the machine does hits all;
    of a block the first `skipped` are left out.
    """
    medians: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(num_rounds):
        for name, step in steps.items():
            seconds = []
            for _ in range(block):
                begin = time.perf_counter()
                step()
                seconds.append(time.perf_counter() - begin)
            medians[name].append(statistics.median(seconds[skipped:]))
    return medians


def ratio(medians: dict[str, list[float]], name: str, to: str) -> float:
    """The median over the rounds of how many times longer a step is than one of the kind `to`."""
    return statistics.median(a / b for a, b in zip(medians[name], medians[to], strict=True))
