"""A small pool for a task learner of masks: digits, each with a mask beside it of what is ink."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.toml import override
from tests.rounds import encoded, write_shard

CLASSES = ["paper", "grey", "ink"]
VOID = 9
"""The id of the first row of every mask."""
SHARDS = 4
SETTINGS: dict[str, Any] = {
    "train.task": "segmentation", "handoff.question": {"task": "mask", "classes": CLASSES},
    "labels.masks": "member:m.png", "labels.void": [VOID], "image.size": 16, "image.channels": 1,
    "score.acquisition": ["entropy"], "select.acquisition": "entropy", "select.budget": 10, "train.batch_size": 16,
}  # fmt: skip


def mask_of(pixels: Any) -> Any:
    """The ids (8, 8) of a digit (8, 8), 0 to 16."""
    ids = np.digitize(pixels, [5, 11]).astype(np.uint8)
    ids[0] = VOID
    return ids


def mask_campaign(
    folder: Path, num_labelled: int = 80, bad: dict[int, bytes] | None = None, **settings: Any
) -> Campaign:
    """A campaign on 120 digits in four shards, of which the first are labelled; the masks of some are these bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits().images[:120]
    members: dict[str, dict[str, bytes]] = {f"{number}.tar": {} for number in range(SHARDS)}
    rows = []
    for number, pixels in enumerate(digits):
        shard, key = f"{number % SHARDS}.tar", f"{number:03d}"
        members[shard][f"{key}.png"] = encoded((pixels * 15).astype(np.uint8))
        members[shard][f"{key}.m.png"] = (bad or {}).get(number) or encoded(mask_of(pixels))
        rows.append((shard, key, "mask"))
    for shard, files in members.items():
        write_shard(folder / shard, files)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("shard", "key", "label"), *rows[:num_labelled]])
    named = {name.replace("__", "."): value for name, value in settings.items()}
    config = override(CampaignConfig(), {**SETTINGS, **named}, "test")
    shards = [f"{folder}/{shard}" for shard in members]
    return create(f"{folder}/campaign", shards, f"{folder}/labels.csv", config, lambda _: None)


def jpeg(pixels: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()
