"""How many requests the steps of a round ask of an object store, and what they wait for them.

    python tests/bench/store_requests.py [small]

An S3 server on this machine, behind a proxy that counts and lets each request wait for 20 ms: a pool of 2,000 shards
(small: 200) of two images each, 20 labels, and a campaign in the same store, whose scores are made up. All 2,000 picks
are of different shards. The server is a Python program of this process: seconds are more than a store's.
"""

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from measure import end_on_sigterm, is_small, machine
from PIL import Image

from engine.campaign.changes import refresh
from engine.campaign.folder import Campaign
from engine.campaign.opening import create, open_campaign
from engine.campaign.status import status
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.handoff.export import export
from engine.report.report import report
from engine.selection.select import select
from engine.storage.location import Location, _remote_filesystem
from engine.training.plan import plan_training
from tests.conftest import pretend_trained
from tests.fabricate import fabricate_scores
from tests.faults.proxy import Fault, Plan, faulty_proxy
from tests.rounds import write_shard
from tests.servers import s3_server

SECONDS = 0.02
NUM_LABELS = 20


@dataclass
class Counting(Plan):
    """Counts requests by method, and lets each wait."""

    methods_seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fate(self, method: str, path: str, range_: str) -> Fault | None:
        with self.lock:
            self.methods_seen[method] += 1
        time.sleep(SECONDS)
        return None


def upload_pool(folder: Path, num_shards: int) -> None:
    """Through no proxy: nobody waits for it."""
    rng = np.random.default_rng(0)
    for number in range(num_shards):
        members = {}
        for place in range(2):
            content = BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(content, "PNG")
            members[f"{number:05d}-{place}.png"] = content.getvalue()
        name = f"s-{number:05d}.tar"
        write_shard(folder / name, members)
        Location(f"s3://bench/pool/{name}").write_bytes((folder / name).read_bytes())


def measured(plan: Counting, name: str, step: Callable[[], Any]) -> Any:
    plan.methods_seen.clear()
    begin = time.perf_counter()
    found = step()
    seconds = time.perf_counter() - begin
    counts = ", ".join(f"{method} {count:,}" for method, count in sorted(plan.methods_seen.items()))
    print(f"{name:<16}{seconds:>8.1f}{plan.methods_seen.total():>9,}  {counts}", flush=True)
    return found


def run_steps(plan: Counting, labels: str, num_shards: int) -> None:
    settings = {"image.size": 8, "select.budget": num_shards, "select.diversity": "none", "select.duplicates": "off"}
    config = override(CampaignConfig(), {**settings, "select.control_fraction": 0.0}, "bench")
    pool = ["s3://bench/pool/*.tar"]

    def make() -> Campaign:
        return create("s3://bench/campaign", pool, labels, config, lambda _: None)

    campaign = measured(plan, "init", make)
    measured(plan, "status", lambda: status(open_campaign("s3://bench/campaign")))
    measured(plan, "refresh", lambda: refresh(campaign, lambda _: None))
    measured(plan, "train plan", lambda: plan_training(campaign))
    pretend_trained(campaign)
    # The first image of each shard is picked.
    logits = np.array([-1, 1], np.float32)
    measured(plan, "scores written", lambda: fabricate_scores(campaign, lambda *_: logits))
    measured(plan, "select", lambda: select(campaign))
    measured(plan, "export", lambda: export(campaign))
    measured(plan, "report", lambda: report(campaign))
    measured(plan, "status, sent", lambda: status(open_campaign("s3://bench/campaign")))


def main() -> None:
    end_on_sigterm()
    num_shards = 200 if is_small() else 2000
    print(f"{machine()}; {num_shards:,} shards, each request waits {1000 * SECONDS:.0f} ms")
    plan = Counting(share=0.0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = stack.enter_context(s3_server("bench"))
        os.environ |= environment
        upload_pool(folder, num_shards)
        # Clients that are made from here on go through the proxy.
        os.environ["AWS_ENDPOINT_URL"] = stack.enter_context(faulty_proxy(environment["AWS_ENDPOINT_URL"], plan))
        _remote_filesystem.cache_clear()
        labels = folder / "labels.csv"
        rows = [f"s-{n:05d}.tar,{n:05d}-1,{n % 2}" for n in range(NUM_LABELS)]
        labels.write_text("\n".join(["shard,key,label", *rows]))
        print(f"{'step':<16}{'s':>8}{'requests':>9}")
        run_steps(plan, str(labels), num_shards)


if __name__ == "__main__":
    main()
