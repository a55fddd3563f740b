"""What it costs to hand out images to each vendor, and to take in the answers.

    python tests/bench/handoff.py [small|large]

A pool of 100,000 PNGs of 8 x 8 pixels (small: 500) in tar shards, all of which are picked. For each vendor: the export,
and the ingest of what a vendor sends back to these task files, a class for each image. That every image has then the
label that was given is asserted; the classes have quotes, commas, a leading = and other than Latin letters. Then the
ingest of ten answers an image, 1,000,000 (small: 5,000), as the neutral CSV and as Label Studio's export.

Each export and each ingest is a fresh process: seconds of the clock and of the processor, and how much memory it took
at most over what it had when it began. ITEMS in the environment is another number of images.
"""

import csv
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from measure import end_on_sigterm, is_small, machine, resident_bytes, result_of, start_fresh
from PIL import Image

from engine.campaign.folder import Campaign
from engine.campaign.labels import read_labels
from engine.campaign.opening import open_campaign
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.handoff.export import export
from tests.answering import VENDORS, WHEN, answer
from tests.sendings import take_in

CLASSES = ['a "jug", large', "=1+1", "Küche, 台所", "it's <b> & |"]
ITEMS_PER_SHARD = 2000
NUM_ANNOTATORS = 10
MIB = 1 << 20


def chosen(item_id: str, classes: list[str]) -> str:
    """The class that an image is given; the order in which a vendor lists them does not matter."""
    return sorted(classes)[int(item_id[:8], 16) % len(classes)]


def write_pool(folder: Path, num_items: int) -> None:
    rng = np.random.default_rng(0)
    for start in range(0, num_items, ITEMS_PER_SHARD):
        with tarfile.open(folder / f"pool-{start // ITEMS_PER_SHARD:04d}.tar", "w") as tar:
            for number in range(start, min(num_items, start + ITEMS_PER_SHARD)):
                content = BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(content, "PNG")
                member = tarfile.TarInfo(f"{number:08d}.png")
                member.size = content.tell()
                content.seek(0)
                tar.addfile(member, content)


def picked_campaign(folder: Path, num_items: int) -> None:
    """A campaign at folder/campaign that picked all images but one, which has a label."""
    # Here, for an export and an ingest load none of it, and their start and memory are measured.
    from engine.campaign.opening import create
    from engine.selection.select import select
    from tests.conftest import pretend_trained
    from tests.fabricate import fabricate_scores

    (folder / "pool").mkdir()
    write_pool(folder / "pool", num_items + 1)
    settings: dict[str, Any] = {"image.size": 8, "image.channels": 1, "select.budget": num_items}
    settings |= {"select.diversity": "none", "select.duplicates": "off", "handoff.question.classes": CLASSES}
    labels = folder / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("shard", "key", "label"), ("pool-0000.tar", f"{0:08d}", CLASSES[0])])
    config = override(CampaignConfig(), settings, "bench")
    campaign = create(f"{folder}/campaign", [f"{folder}/pool/*.tar"], str(labels), config, lambda _: None)
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32) % 20)
    select(campaign)


def require_all_labels(campaign: Campaign) -> None:
    """That every pick has exactly the label that was given to its image."""
    picks = (campaign.stage("selection") / "selection.parquet").read_table(["item_id", "shard", "key"]).to_pylist()
    wanted = {(pick["shard"], pick["key"]): chosen(pick["item_id"], CLASSES) for pick in picks}
    rows = read_labels(campaign.home).to_pylist()
    found = {(row["shard"], row["key"]): row["label"] for row in rows if row["round"] is not None}
    if found != wanted:
        sys.exit(f"{campaign.home}: {len(wanted)} images went out, {len(found)} labels came back, and they differ")


def child_main(what: str, home: str, vendor: str, annotators: str, files: str) -> None:
    """Export, or ingest, in this process; prints what it cost as JSON."""
    campaign = open_campaign(home)
    config = override(campaign.config, {"handoff.annotators": int(annotators)}, "bench")
    campaign = replace(campaign, config=config)
    before, cpu, begin = resident_bytes(), time.process_time(), time.perf_counter()
    if what == "export":
        export(campaign, vendor=vendor)
    else:
        take_in(campaign, files, vendor)
    cost = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu, "before": before}
    print(json.dumps({**cost, "peak": resident_bytes(peak=True)}))


def cost_of(what: str, home: Path, vendor: str, annotators: int = 1, files: Path = Path()) -> tuple[str, float]:
    """The cost of an export or ingest in words, and its memory in bytes."""
    found = result_of(start_fresh(__file__, "child", what, str(home), vendor, str(annotators), str(files)))
    more = found["peak"] - found["before"]
    return f"{found['seconds']:8.1f} s {found['cpu']:7.1f} CPU s {more / MIB:6.0f} MiB", more


def round_trip(vendor: str, source: Path, folder: Path) -> None:
    home, back = folder / "campaign", folder / "back"
    shutil.copytree(source, home)
    out, _ = cost_of("export", home, vendor)
    campaign = open_campaign(str(home))
    answer(vendor, Path(campaign.stage(f"handoff/{vendor}").path), chosen, back)
    taken, _ = cost_of("ingest", home, vendor, files=back)
    require_all_labels(campaign)
    print(f"{vendor:<14}{out}   {taken}", flush=True)


def write_csv(ids: list[str], file: Path) -> None:
    with file.open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("item_id", "label", "annotator"))
        for item_id in ids:
            label = chosen(item_id, CLASSES)
            text = f"'{label}" if label.startswith("=") else label
            rows.writerows((item_id, text, f"w{number}") for number in range(NUM_ANNOTATORS))


def write_annotations(ids: list[str], file: Path) -> None:
    with file.open("w") as out:
        for number, item_id in enumerate(ids):
            value = {"choices": [chosen(item_id, CLASSES)]}
            result = [{"from_name": "class", "to_name": "image", "type": "choices", "value": value}]
            annotations = [
                {
                    "id": number * NUM_ANNOTATORS + person, "completed_by": person, "result": result, "lead_time": 4.2,
                    "was_cancelled": False, "updated_at": WHEN,
                    "unique_id": f"00000000-0000-4000-8000-{number * NUM_ANNOTATORS + person:012}",
                }
                for person in range(1, NUM_ANNOTATORS + 1)
            ]  # fmt: skip
            task = {"id": number, "annotations": annotations, "data": {"image": "x", "item_id": item_id}}
            out.write(f"{',' if number else '['}{json.dumps(task)}\n")
        out.write("]")


def many_answers(vendor: str, write: Callable[[list[str], Path], None], source: Path, folder: Path) -> None:
    home, file = folder / "campaign", folder / ("a.csv" if vendor == "generic" else "a.json")
    shutil.copytree(source, home)
    cost_of("export", home, vendor, NUM_ANNOTATORS)
    campaign = open_campaign(str(home))
    ids = (campaign.stage("selection") / "selection.parquet").read_table(["item_id"])["item_id"].to_pylist()
    write(ids, file)
    total = len(ids) * NUM_ANNOTATORS
    for when in ("first", "again"):
        cost, memory = cost_of("ingest", home, vendor, NUM_ANNOTATORS, file)
        require_all_labels(campaign)
        print(f"{total:,} answers of {vendor}, {when}: {cost}, {memory / total:.0f} bytes an answer", flush=True)


def main() -> None:
    end_on_sigterm()
    num_items = int(os.environ.get("ITEMS", 500 if is_small() else 100_000))
    print(f"{machine()}; {num_items:,} images")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "campaign"
        picked_campaign(Path(name), num_items)
        print(f"{'':<14}{'export':>36}   {'ingest of an answer an image':>36}")
        for vendor in VENDORS:
            with tempfile.TemporaryDirectory() as folder:
                round_trip(vendor, source, Path(folder))
        for vendor, write in (("generic", write_csv), ("label-studio", write_annotations)):
            with tempfile.TemporaryDirectory() as folder:
                many_answers(vendor, write, source, Path(folder))


if __name__ == "__main__":
    child_main(*sys.argv[2:]) if sys.argv[1:2] == ["child"] else main()
