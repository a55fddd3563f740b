"""A round without training or Ray: given logits, committed and picked from by the functions that every round uses."""

import csv
import io
import shutil
import tarfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.selection.select import select
from engine.storage.location import Location
from tests.conftest import pretend_trained
from tests.fabricate import fabricate_scores

Identity = tuple[str, str]
SCRIPT = ("s-0.tar", "<script>alert(1)</script>")
WIDE = ("s-1.tar", "wide & <b>bold</b>")
DAMAGED = ("s-2.tar", "<img src=x onerror=alert(1)>")
BUDGET = 60


class Made(NamedTuple):
    """A campaign with a selection, and what is in its pool: images and logits of the items that can be decoded."""

    campaign: Campaign
    images: dict[Identity, bytes]
    logits: dict[Identity, float]
    labelled: set[Identity]


def encoded(pixels: np.ndarray[Any, np.dtype[np.uint8]], kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def make_round(folder: Path, signal: str = "present", budget: int = BUDGET) -> Made:
    """150 small images in three shards, one of them large; two that cannot be scored; 20 labels."""
    rng = np.random.default_rng(0)
    images = {(f"s-{n // 50}.tar", f"{n:04d}"): encoded(rng.integers(0, 256, (8, 8), np.uint8)) for n in range(150)}
    images[SCRIPT] = encoded(rng.integers(0, 256, (150, 300, 3), np.uint8), "JPEG")
    images[WIDE] = encoded(rng.integers(0, 256, (6, 12, 3), np.uint8))
    logits = {item: float(logit) for item, logit in zip(images, rng.normal(0, 2, len(images)), strict=True)}
    logits[SCRIPT], logits[WIDE] = -20.0, -19.5
    folder.mkdir(parents=True, exist_ok=True)
    members: dict[str, dict[str, bytes]] = defaultdict(dict)
    for (shard, key), content in images.items():
        members[shard][f"{key}.png"] = content
    members[DAMAGED[0]] |= {f"{DAMAGED[1]}.png": b"no image", "twice.png": b"", "twice.jpg": b""}
    for shard, files in members.items():
        write_shard(folder / shard, files)
    labelled = [item for item in images if item not in (SCRIPT, WIDE)][::7][:20]
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("shard", "key", "label"), *((*item, "x") for item in labelled)])
    settings = {"image.size": 8, "select.budget": budget, "score.max_bad_fraction": 1.0}
    settings |= {"select.diversity": "clusters", "select.when_no_signal": "diversity"}
    config = override(CampaignConfig(), settings, "test")
    shards = [f"{folder}/s-{n}.tar" for n in range(3)]
    campaign = create(f"{folder}/campaign", shards, f"{folder}/labels.csv", config, lambda _: None)
    made = Made(campaign, images, logits, set(labelled))
    score_and_pick(made, signal)
    return made


def score_and_pick(made: Made, signal: str = "present") -> None:
    """Training, scoring and selection of the round, with the logits that are given."""
    campaign = made.campaign
    pretend_trained(campaign, signal)
    fabricate_scores(campaign, lambda shard, keys: np.array([made.logits[shard, key] for key in keys], np.float32))
    select(campaign)


def without_report(campaign: Campaign, home: Path) -> Campaign:
    """A copy of the campaign, at `home`, without its report."""
    shutil.copytree(campaign.home.path, home, ignore=shutil.ignore_patterns("report"))
    return replace(campaign, home=Location(str(home)))
