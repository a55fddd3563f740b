"""How much of an iteration training waits for its images, and what memory a pool of four times the size takes.

    python tests/bench/input_stall.py [small]

CIFAR-10's images re-encoded as JPEG at 64 px, quality 90, 2,000 of them labelled; default networks at image.size=64, 64
images of each pool (small: 16), one worker without Ray. Needs CIFAR-10's shards below VAAL_DATA, else ../shared/data;
says so and ends where they are absent.

Three kinds take turns in one run: batches that are worked out ahead in a thread, as the engine does; batches that are
worked out when they are asked for; and one batch again and again, which costs nothing. A kind's share of waiting is the
time in `next`, of all its iterations but those that begin a block: there the thread has had time to work ahead. Target:
at most 5 % with prefetching. The thread takes time from the networks too: that shows in the time of an iteration.

Memory: in fresh processes, the highest resident memory of five iterations and then a whole pass over the pool.
"""

import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from measure import cifar10_shards, interleaved, is_small, machine, ratio, resident_bytes
from PIL import Image

from engine.campaign.folder import Campaign
from engine.campaign.opening import create, open_campaign
from engine.config.input_options import ImageConfig
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.models.weights import make_networks
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.training.batches import PREFETCH, prefetched
from engine.training.labelled import Part
from engine.training.plan import plan_training
from tests.learn import batches_of, labelled_of, to_batch
from tests.rounds import write_shard
from tests.updater import OptimizerUpdater
from vaal.step import Batch, Updates, vaal_step

SIDE, QUALITY = 64, 90
NUM_LABELLED = 2000
TARGET = 0.05
WARM_UP = 5
KINDS = ("prefetched", "not prefetched", "one batch again")


def make_pool(folder: Path, sources: list[Path], copies: int, batch_size: int) -> Campaign:
    """A campaign on the re-encoded images; with more copies, on each shard under as many names."""
    folder.mkdir(parents=True)
    items = []
    for number, shard in enumerate(list_shards([str(source) for source in sources], "")[0]):
        members = {f"{item.key}.jpg": _encoded(item.data) for item in read_shard(shard, ImageConfig())}
        file = folder / f"pool-{number}-0.tar"
        write_shard(file, members)
        items += [(file.name, name.removesuffix(".jpg")) for name in members]
        for copy in range(1, copies):
            os.link(file, folder / f"pool-{number}-{copy}.tar")
    labels = folder / "labels.csv"
    step = max(1, len(items) // NUM_LABELLED)
    rows = [f"{shard},{key},thing" for shard, key in items[::step][:NUM_LABELLED]]
    labels.write_text("\n".join(["shard,key,label", *rows]))
    values = {"image.size": SIDE, "train.epochs": 1000, "train.max_steps": 10**6, "train.batch_size": batch_size}
    config = override(CampaignConfig(), values, "bench")
    return create(str(folder / "campaign"), [f"{folder}/*.tar"], str(labels), config, lambda _: None)


def _encoded(data: bytes) -> bytes:
    content = io.BytesIO()
    image = Image.open(io.BytesIO(data)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    image.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


class Training:
    """Networks, and a source of batches; `waited` are the seconds of each iteration's wait."""

    def __init__(self, campaign: Campaign, kind: str, scratch: Path) -> None:
        self.plan = plan_training(campaign)
        networks = make_networks(campaign.config)
        self.vae, self.discriminators = (
            OptimizerUpdater(m, torch.optim.Adam(m.parameters(), lr=campaign.config.train.learning_rate))
            for m in networks[:2]
            if m is not None
        )
        labelled = labelled_of(self.plan, campaign, Part(0, 1), scratch / kind)
        self.batches: Iterable[Any] = batches_of(self.plan, labelled, Part(0, 1), networks.num_latents)
        if kind == "prefetched":
            self.batches = prefetched(self.batches)
        elif kind == "one batch again":
            self.batches = itertools.repeat(next(iter(self.batches)))
        self.waited: list[float] = []
        self.feed = self._feed()

    def _feed(self) -> Iterator[list[Batch]]:
        source = iter(self.batches)
        while True:
            begin = time.perf_counter()
            parts, _ = next(source)
            self.waited.append(time.perf_counter() - begin)
            yield [to_batch(part) for part in parts]

    def step(self) -> None:
        vaal_step(self.vae, self.discriminators, self.feed, self.plan.weights, Updates())


def stall(campaign: Campaign, folder: Path, num_rounds: int, block: int) -> None:
    """Print how long the iterations take, and how long they wait."""
    runs = {kind: Training(campaign, kind, folder) for kind in KINDS}
    steps = {kind: run.step for kind, run in runs.items()}
    interleaved(steps, num_rounds=1, block=WARM_UP)
    for run in runs.values():
        run.waited.clear()
    skipped = PREFETCH + 1
    medians = interleaved(steps, num_rounds=num_rounds, block=block, skipped=skipped)
    print(f"{machine()}; {num_rounds} rounds of {block} iterations of each kind, {skipped} of a block left out")
    for kind, run in runs.items():
        seconds = statistics.median(medians[kind])
        counted = [wait for number, wait in enumerate(run.waited) if number % block >= skipped]
        # Of the mean wait, not the median: the waits are few and long.
        share = statistics.mean(counted) / seconds
        verdict = f"  (target at most {TARGET:.0%})" if kind == "prefetched" else ""
        rate, times = 2 * campaign.config.train.batch_size / seconds, ratio(medians, kind, to=KINDS[2])
        print(
            f"{kind:<16} {seconds * 1000:7.1f} ms an iteration  {rate:6.0f} images/s  ratio {times:.3f}"
            f"  waiting {share:6.1%}{verdict}"
        )


def memory_main(home: str) -> None:
    """In a process of its own: five iterations, then one pass without the networks. Prints the highest memory."""
    campaign = open_campaign(home, [])
    with tempfile.TemporaryDirectory() as folder:
        run = Training(campaign, "prefetched", Path(folder))
        for _ in range(WARM_UP):
            run.step()
        trained = resident_bytes(peak=True)
        num_batches = int(run.plan.images_per_epoch / campaign.config.train.batch_size)
        for _ in itertools.islice(run.batches, num_batches):
            pass
    print(json.dumps({"trained": trained, "passed": resident_bytes(peak=True), "images": run.plan.images_per_epoch}))


def memory(campaign: Campaign) -> float:
    """Print and return the highest resident memory, MB."""
    words = [sys.executable, __file__, "memory", str(campaign.home)]
    found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
    trained, peak = (found[name] / 2**20 for name in ("trained", "passed"))
    print(f"{found['images']:>6,} unlabelled images: {trained:,.0f} MiB, after a whole pass {peak:,.0f} MiB")
    return float(peak)


def main() -> None:
    num_rounds, block, num_shards, batch_size = (1, 12, 3, 16) if is_small() else (5, 16, 10, 64)
    sources = cifar10_shards()[:num_shards]
    if not sources:
        print("not measured: no cifar10/train-*.tar below VAAL_DATA or ../shared/data")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        once, fourfold = (make_pool(folder / f"pool-{copies}", sources, copies, batch_size) for copies in (1, 4))
        stall(once, folder, num_rounds, block)
        peaks = [memory(campaign) for campaign in (once, fourfold)]
        print(f"memory of a pool four times as large: ratio {peaks[1] / peaks[0]:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        memory_main(sys.argv[2])
    else:
        main()
