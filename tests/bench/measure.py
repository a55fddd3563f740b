"""What the programs of this folder share. Importing it lets a program that is run by its path import `tests`."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def is_small() -> bool:
    """Whether the quick variant is asked for."""
    return "small" in sys.argv[1:]


def machine() -> str:
    # Here, for a driver of scoring never loads it, and its start and its memory are measured.
    import torch

    return f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch, load {os.getloadavg()[0]:.1f}"


def cifar10_shards() -> list[Path]:
    """CIFAR-10's training shards below VAAL_DATA, else ../shared/data; none where they are absent."""
    return _shards("cifar10/train-*.tar")


def photo_shards() -> list[Path]:
    """The photographs' shards, likewise."""
    return _shards("photos/pool-*.tar")


def _shards(pattern: str) -> list[Path]:
    return sorted(Path(os.environ.setdefault("VAAL_DATA", str(ROOT.parent / "shared/data"))).glob(pattern))


def end_on_sigterm() -> None:
    """Let `timeout` and the like end this process as Ctrl-C does: children are ended, temporary folders removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def start_fresh(*words: str) -> subprocess.Popen[str]:
    """Start a Python program in a session of its own, so that whatever it starts can be ended with it."""
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, start_new_session=True)


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON object that is the last line a program prints. What interrupts the wait ends the program too."""
    try:
        output, _ = process.communicate()
    except BaseException:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        raise
    finally:
        # Of its session nothing is left behind, whatever became of it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, process.args))}: exit status {process.returncode}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def resident_bytes(*, peak: bool = False) -> int:
    """This process's memory, now or at most so far. (getrusage's peak begins with that of the parent.)"""
    found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def interleaved(
    steps: dict[str, Callable[[], None]],
    *,
    num_rounds: int,
    block: int,
    skipped: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """The median seconds of a step, by name, one for every round; of the clock, such as `time.process_time`.

    A round is a block of steps of each kind, one kind after another, so that whatever else the machine does hits all;
    of a block the first `skipped` are left out.
    """
    medians: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(num_rounds):
        for name, step in steps.items():
            seconds = []
            for _ in range(block):
                begin = clock()
                step()
                seconds.append(clock() - begin)
            medians[name].append(statistics.median(seconds[skipped:]))
    return medians


def ratio(medians: dict[str, list[float]], name: str, to: str) -> float:
    """The median over the rounds of how many times longer a step is than one of the kind `to`."""
    return statistics.median(a / b for a, b in zip(medians[name], medians[to], strict=True))
