"""Images a second that `vaal pack` writes, beside `tar`; and whether ten kills change anything.

    python tests/bench/packing.py [small]

50,000 JPEGs (small: 5,000) of about 8 kB in a folder tree of 50 classes, on the local disk. In turn, three times:
`tar` writes them into one archive, and `vaal pack` into shards of 5,000, in a process of its own with Ray's start in
it, and again without, in this process. Ratios are of medians. Then `vaal pack` is killed ten times, at random moments
spread over its run, and run again: its shards and labels are compared with those of the undisturbed run.

Targets: a twentieth of tar's speed in one process, with everything in memory; not a byte of difference.
"""

import io
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import end_on_sigterm, is_small, machine

TARGET_RATIO = 1 / 20
CLASSES, REPEATS, KILLS = 50, 3, 10


def write_images(folder: Path, number: int) -> int:
    """Write so many images, and return their bytes."""
    import numpy as np
    from PIL import Image

    rng, total = np.random.default_rng(0), 0
    for place in range(number):
        small = rng.integers(0, 256, (12, 12, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((160, 160), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        path = folder / f"class {place % CLASSES:02d}/{place:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue())
        total += file.tell()
    return total


def timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def command(source: Path, pool: Path, each: int) -> list[str]:
    words = [sys.executable, "-m", "jobs", "pack", str(source), str(pool), "--classes-from-folders"]
    return [*words, "--shard-images", str(each)]


def pack_here(source: Path, pool: Path, each: int) -> None:
    """Pack in this process, whatever the number of shards."""
    from engine.campaign.stages import Run
    from engine.packing import pack
    from engine.packing.entries import Options
    from engine.packing.outcome import summarise
    from engine.storage.location import Location

    pack.SHARDS_WITHOUT_RAY = 1 << 30
    home = Location.of(str(pool))
    pack.pack(Location.of(str(source)), home, Options(has_class_folders=True, shard_images=each), Run())
    summarise(home, home / "labels.csv")


def killed(words: list[str], seconds: float) -> int:
    """Run the command, and again, until it ends; the first KILLS runs are killed. Returns how many were."""
    rng, count = random.Random(0), 0
    while True:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(rng.uniform(0.3, 1.2) * seconds if count < KILLS else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            count += 1
        else:
            if process.returncode or count >= KILLS:
                assert not process.returncode, process.returncode
                return count
            # It ended before its kill: once more from the start.
            shutil.rmtree(words[5])


def shown(pool: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in [*pool.glob("*.tar"), pool / "labels.csv"]}


def main() -> None:
    end_on_sigterm()
    number = 5_000 if is_small() else 50_000
    each = number // 10
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        size = write_images(home / "in", number)
        print(f"{number:,} images, {size / 1e6:.0f} MB; {machine()}")
        seconds: dict[str, list[float]] = {"tar": [], "vaal pack, in one process": [], "vaal pack, on Ray": []}
        for turn in range(REPEATS):
            tar = ["tar", "-cf", str(home / "all.tar"), "-C", str(home / "in"), "."]
            runs = (
                lambda tar=tar: subprocess.run(tar, check=True),
                lambda turn=turn: pack_here(home / "in", home / f"here-{turn}", each),
                lambda turn=turn: subprocess.run(
                    command(home / "in", home / f"ray-{turn}", each), check=True, stdout=subprocess.DEVNULL
                ),
            )
            for name, run in zip(seconds, runs, strict=True):
                seconds[name].append(timed(run))
        medians = {name: statistics.median(found) for name, found in seconds.items()}
        for name, median in medians.items():
            print(f"{name}: {number / median:,.0f} images/s, {medians['tar'] / median:.2f} of tar")
        expected = shown(home / "ray-0")
        assert shown(home / "here-0") == expected
        count = killed(command(home / "in", home / "killed", each), medians["vaal pack, on Ray"])
        is_same = shown(home / "killed") == expected
        print(f"killed {count} times: {'the same' if is_same else 'DIFFERENT'} shards and labels")
        ratio = medians["tar"] / medians["vaal pack, in one process"]
        sys.exit(not (is_same and ratio >= TARGET_RATIO))


if __name__ == "__main__":
    main()
