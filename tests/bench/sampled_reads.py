"""What it costs to read a sample of a large pool in short runs from all its shards, beside whole shards one by one.

    python tests/bench/sampled_reads.py [small]

Shards of 1,000 images of 20 KB to 40 KB (noise; nothing is decoded), read as one stream of training does, once with
no delay and once with 30 ms added to each request: to look at a file, to open it, to read a block. Prints images per
second, requests and bytes read for each image, and the shards that are seen, for the same number of images.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from measure import is_small, machine

from engine.config.input_options import ImageConfig
from engine.pool import shard as shard_module
from engine.pool.manifest import list_shards
from engine.pool.sight import Sight
from engine.storage.retries import RetryingStream
from engine.tables.by_shard import ByShard
from engine.training.deal import Deal, run_bytes
from engine.training.streams import Pool, unlabelled, unlabelled_runs
from tests.rounds import write_shard

NUM_SHARDS, ITEMS = (6, 300) if is_small() else (40, 1000)
WANTED = 600 if is_small() else 8000
counted = {"requests": 0, "bytes": 0}
delay_s = 0.0


def watched(function: Any) -> Any:
    """The function, counted as a request and delayed."""

    def request(*arguments: Any, **named: Any) -> Any:
        time.sleep(delay_s)
        counted["requests"] += 1
        result = function(*arguments, **named)
        counted["bytes"] += len(result) if isinstance(result, bytes) else 0
        return result

    return request


def whole(pool: Pool, deal: Deal) -> Iterator[int]:
    for index in np.random.default_rng(0).permutation(len(pool.shards)):
        with closing(unlabelled(pool, pool.shards[index], {}, held_out=False)) as items:  # type: ignore[type-var]
            for _ in items:
                yield int(index)


def in_runs(pool: Pool, deal: Deal) -> Iterator[int]:
    with closing(unlabelled_runs(pool, deal, deal.runs(0, 0), {}, held_out=False)) as runs:
        for index, items in runs:
            yield from (index for _ in items)


def main() -> None:
    global delay_s
    print(machine())
    RetryingStream._read_part = watched(RetryingStream._read_part)  # type: ignore[method-assign]
    shard_module._open, shard_module._check = watched(shard_module._open), watched(shard_module._check)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(NUM_SHARDS):
            sizes = rng.integers(20_000, 40_000, ITEMS)
            write_shard(
                Path(folder) / f"{number:03}.tar", {f"{n:05}.jpg": rng.bytes(size) for n, size in enumerate(sizes)}
            )
        pool = Pool(list_shards([f"{folder}/*.tar"], "")[0], Sight(ImageConfig()), 2, ByShard.of_items([]), 0.0)
        shard_sizes = np.array([shard.size_bytes for shard in pool.shards])
        deal = Deal(shard_sizes, 1, 0, None, run_bytes(shard_sizes, NUM_SHARDS * ITEMS, WANTED))
        print(f"{WANTED} of {NUM_SHARDS * ITEMS} images; runs of {deal.run_bytes / 1e6:.1f} MB")
        for delay_s in (0.0, 0.03):
            rates = []
            for name, source in (("whole shards", whole), ("runs", in_runs)):
                counted.update(requests=0, bytes=0)
                begin = time.perf_counter()
                seen = list(islice(source(pool, deal), WANTED))
                rates.append(len(seen) / (time.perf_counter() - begin))
                print(
                    f"{1000 * delay_s:.0f} ms, {name}: {rates[-1]:,.0f} images/s, {len(set(seen))} shards; an image: "
                    f"{counted['requests'] / len(seen):.3f} requests and {counted['bytes'] / len(seen):,.0f} bytes"
                )
            print(f"runs against whole shards: {rates[1] / rates[0]:.2f}")


if __name__ == "__main__":
    main()
