"""Images per second of `vaal score` beside a bare PyTorch loop over the same shards, on the same cores, in one run.

    python tests/bench/score_throughput.py [NUM_SHARDS]

Needs CIFAR-10's shards below VAAL_DATA, else ../shared/data; says so and ends where they are absent. Both sides read
tar shards, decode JPEG by Pillow and run the default encoder and discriminators in batches of the same size; the bare
loop neither checks, hashes nor commits anything. The stage is timed from its call to its manifest, with and without the
seconds in which Ray starts.
"""

import io
import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.campaign import Campaign, create, write_manifest
from engine.config import CampaignConfig, override
from engine.demo import cifar10
from engine.pool import expand
from engine.scoring import score
from engine.session import ray_session
from engine.weights import make_networks, save_weights


def bare_loop(files: list[str], config: CampaignConfig) -> tuple[int, float]:
    """Items and seconds of one process with all cores."""
    networks = make_networks(config).eval()
    torch.set_num_threads(os.cpu_count() or 1)
    started, count = time.perf_counter(), 0
    batch: list[np.ndarray] = []

    def flush() -> None:
        x = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1
        networks.score(x, torch.zeros(len(batch), dtype=torch.int64))
        batch.clear()

    for file in files:
        with tarfile.open(file) as tar:
            for member in tar:
                data = tar.extractfile(member)
                assert data is not None
                batch.append(np.asarray(Image.open(io.BytesIO(data.read())).convert("RGB")))
                count += 1
                if len(batch) == config.score.batch_size:
                    flush()
        if batch:
            flush()
    return count, time.perf_counter() - started


def vaal_score(campaign: Campaign) -> tuple[int, float]:
    """Items and seconds of the score stage."""
    started = time.perf_counter()
    manifest = score(campaign, "local", lambda _: None, lambda _: None)
    return manifest["counts"]["scored"], time.perf_counter() - started


def main() -> None:
    num_shards = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    data = Path(os.environ.setdefault("VAAL_DATA", str(Path(__file__).parents[3] / "shared/data")))
    if not (data / "cifar10").is_dir():
        print(f"not measured: no cifar10/ below {data}; set VAAL_DATA")
        return
    with tempfile.TemporaryDirectory() as folder:
        pool = cifar10(Path(folder) / "pool")
        config = override(CampaignConfig(), {"pool.root": str(Path(expand(pool.shards)[0].url).parent)}, "bench")
        files = [location.url for location in expand(pool.shards)][:num_shards]
        labels = Path(folder) / "labels.csv"
        shard, key = next((s, k) for s, k in sorted(pool.oracle) if s == Path(files[0]).name)
        labels.write_text(f"shard,key,label\n{shard},{key},{pool.oracle[shard, key]}\n")
        campaign = create(f"{folder}/campaign", files, str(labels), config, lambda _: None)
        weights = save_weights(campaign.stage("train"), make_networks(config).files())
        write_manifest(campaign.stage("train"), campaign, inputs={}, counts={}, files=weights)

        bare_items, bare_seconds = bare_loop(files, config)
        bare_rate = bare_items / bare_seconds
        print(f"bare loop           {bare_items:>7,} items {bare_seconds:7.1f} s {bare_rate:8,.0f} items/s")
        started = time.perf_counter()
        with ray_session("local"):
            start_seconds = time.perf_counter() - started
            items, seconds = vaal_score(campaign)
        assert items == bare_items
        for name, total in (("vaal score", seconds), ("  with Ray's start", seconds + start_seconds)):
            rate = items / total
            print(f"{name:<19} {items:>7,} items {total:7.1f} s {rate:8,.0f} items/s  ratio {rate / bare_rate:.2f}")


if __name__ == "__main__":
    main()
