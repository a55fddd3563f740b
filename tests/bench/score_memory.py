"""Peak memory of everything that scoring starts, against the size of a shard and the number of shards.

    python tests/bench/score_memory.py [small]

Shards of 20 MiB, 200 MiB and 2 GiB (small: 5 and 50 MiB): photographs again and again, at 64 px, two shards of the same
bytes so that both actors work. Pools of 10, 100 and 1,000 shards (small: 5 and 50) of 100 images of CIFAR-10. Default
networks, two actors. Needs the shards of both below VAAL_DATA, else ../shared/data; says so where they are absent.

Each pool is scored by a fresh driver with a private Ray. Five times a second the proportional set sizes (PSS) of the
driver and all its descendants, among them the raylet and its workers, are added up: what several of them share, as the
object store, is so counted once. The peak is the highest sum. Of it, "own" is what does not come from files (programs
and libraries), anonymous or shared, and "store" what is shared, foremost the object store, each at its own highest. A
ratio is that of the largest pool to the smallest; a run that takes longer is looked at more often, and a sum of many
processes fluctuates, so that ratios of a few percent say nothing.
"""

import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import score_variants
from measure import cifar10_shards, end_on_sigterm, is_small, machine, photo_shards, result_of, start_fresh
from pools import repeated, trained_campaign, write_pool
from score_variants import Spec

MIB = 1 << 20
SECONDS = 0.2
SHARD_MIB = {True: (5, 50), False: (20, 200, 2048)}
NUM_SHARDS = {True: (5, 50), False: (10, 100, 1000)}
ITEMS_PER_SHARD = 100
ROOM_BYTES = {True: 200 * MIB, False: 2560 * MIB}
KINDS = ("Pss", "Pss_Anon", "Pss_Shmem")


def descendants(root: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                # The name, in brackets, may hold anything.
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def memory(pids: list[int]) -> dict[str, int]:
    """Bytes of each kind, over these processes."""
    sums = dict.fromkeys(KINDS, 0)
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            # It has just ended.
            continue
        for kind in KINDS:
            found = re.search(rf"^{kind}:\s+(\d+) kB", text, re.MULTILINE)
            sums[kind] += int(found[1]) * 1024 if found else 0
    return sums


def watch(process: subprocess.Popen[str]) -> dict[str, float]:
    """The highest memory, MiB, until the process ends."""
    peak = dict.fromkeys(("all", "own", "store", "processes"), 0.0)
    while process.poll() is None:
        begin = time.monotonic()
        pids = descendants(process.pid)
        now = memory(pids)
        seen = {
            "all": now["Pss"] / MIB,
            "own": (now["Pss_Anon"] + now["Pss_Shmem"]) / MIB,
            "store": now["Pss_Shmem"] / MIB,
            "processes": len(pids),
        }
        peak = {kind: max(peak[kind], seen[kind]) for kind in peak}
        time.sleep(max(0.0, begin + SECONDS - time.monotonic()))
    return peak


def scored(files: list[Path], side: int, folder: Path) -> dict[str, float]:
    """Score these shards in a fresh process. Returns the highest memory, and the items."""
    settings, spec = {"image.size": side}, folder / "spec.json"
    campaign = trained_campaign(folder / "campaign", files, settings)
    spec.write_text(json.dumps(Spec(list(map(str, files)), settings, str(campaign.home), "", 2)._asdict()))
    process = start_fresh(score_variants.__file__, "vaal", str(spec), str(time.monotonic()))
    try:
        peak = watch(process)
    finally:
        # However the watching ended, the process is.
        if process.poll() is None:
            process.terminate()
        found = result_of(process)
    return {**peak, "items": found["items"]}


def tell(title: str, pools: dict[str, tuple[list[Path], int]], folder: Path) -> None:
    """A line for each pool of (shards, side), and the ratio of the last to the first."""
    print(f"{title:<26}{'items':>8}{'peak MiB':>10}{'own MiB':>9}{'store MiB':>11}{'processes':>11}")
    peaks = []
    for number, (name, (files, side)) in enumerate(pools.items()):
        peak = scored(files, side, folder / f"run-{number}")
        line = f"{peak['all']:>10,.0f}{peak['own']:>9,.0f}{peak['store']:>11,.0f}{peak['processes']:>11.0f}"
        print(f"{name:<26}{peak['items']:>8,}{line}", flush=True)
        peaks.append(peak)
    first, last = peaks[0], peaks[-1]
    print(f"largest to smallest: peak {last['all'] / first['all']:.2f}, own {last['own'] / first['own']:.2f}")


def shard_sizes(folder: Path, *, small: bool) -> dict[str, tuple[list[Path], int]]:
    pools = {}
    for size in SHARD_MIB[small]:
        shard = write_pool(folder / f"{size}.tar", photo_shards(), num_bytes=size * MIB)
        pools[f"{size:,} MiB a shard"] = repeated([shard], 2, folder / f"pool-{size}"), 64
    return pools


def pool_sizes(folder: Path, *, small: bool) -> dict[str, tuple[list[Path], int]]:
    shard = write_pool(folder / "cut.tar", cifar10_shards(), num_items=ITEMS_PER_SHARD)
    return {
        f"{number:,} shards": (repeated([shard], number, folder / f"pool-{number}"), 32) for number in NUM_SHARDS[small]
    }


def main() -> None:
    end_on_sigterm()
    small, absent = is_small(), []
    print(f"{machine()}; a look every {SECONDS:g} s")
    if shutil.disk_usage(tempfile.gettempdir()).free < ROOM_BYTES[small]:
        print(f"not measured: {tempfile.gettempdir()} has no room for {ROOM_BYTES[small] / 2**30:.1f} GiB; set TMPDIR")
        return
    parts = (
        ("size of a shard", "photographs", photo_shards, shard_sizes),
        ("size of the pool", "CIFAR-10", cifar10_shards, pool_sizes),
    )
    for title, source, shards, make in parts:
        if not shards():
            absent.append(source)
            continue
        with tempfile.TemporaryDirectory() as name:
            tell(title, make(Path(name), small=small), Path(name))
    if absent:
        print(f"not measured: {' and '.join(absent)}, for lack of shards below VAAL_DATA or ../shared/data")


if __name__ == "__main__":
    main()
