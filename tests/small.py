"""A tiny campaign with a selection, to be copied, changed and sent."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.selection.select import select
from engine.storage.location import Location
from tests.conftest import pretend_trained
from tests.fabricate import fabricate_scores
from tests.rounds import encoded, write_shard

Identity = tuple[str, str]
SHARDS, EACH = 3, 16
SETTINGS: dict[str, Any] = {
    "image.size": 8, "select.budget": 9, "select.diversity": "none", "select.duplicates": "exact",
    "select.control_fraction": 0.25, "select.when_no_signal": "random", "salt": f"{1:032x}",
}  # fmt: skip


def images() -> dict[Identity, bytes]:
    """48 small images in three shards. The last five of each shard but the first are copies of images before."""
    rng = np.random.default_rng(0)
    found: dict[Identity, bytes] = {}
    for number in range(SHARDS * EACH):
        shard, place = divmod(number, EACH)
        copied = found[f"s-{shard - 1}.tar", f"{number - EACH:03d}"] if shard and place >= EACH - 5 else None
        found[f"s-{shard}.tar", f"{number:03d}"] = copied or encoded(rng.integers(0, 256, (8, 8), np.uint8))
    return found


def make_small(
    folder: Path,
    pool: dict[Identity, bytes] | None = None,
    names: tuple[str, str] = ("cat", "dog"),
    **settings: Any,
) -> Campaign:
    """A campaign of `images()` with labels of two names, in round 0, with a selection. `settings` have __ for a dot."""
    pool = images() if pool is None else pool
    folder.mkdir(parents=True, exist_ok=True)
    for shard in sorted({shard for shard, _ in pool}):
        suffixes = {b"\xff\xd8": "jpg", b"RI": "webp"}
        members = {
            f"{key}.{suffixes.get(content[:2], 'png')}": content
            for (name, key), content in pool.items()
            if name == shard
        }
        write_shard(folder / shard, members)
    labelled = [item for item in pool if item[0] == sorted(pool)[0][0]][:6]
    rows = "".join(f"{shard},{key},{names[n % 2]}\n" for n, (shard, key) in enumerate(labelled))
    (folder / "labels.csv").write_text(f"shard,key,label\n{rows}")
    given = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()}
    config = override(CampaignConfig(), given, "test")
    shards = sorted({f"{folder}/{shard}" for shard, _ in pool})
    campaign = create(f"{folder}/campaign", shards, f"{folder}/labels.csv", config, lambda _: None)
    return picked(campaign)


def picked(campaign: Campaign) -> Campaign:
    """The campaign with a selection in its round: training and scores are made up."""
    pretend_trained(campaign)
    rng = np.random.default_rng(campaign.round)
    fabricate_scores(campaign, lambda _, keys: rng.normal(size=len(keys)).astype(np.float32))
    select(campaign)
    return campaign


def copied(campaign: Campaign, home: Path, **settings: Any) -> Campaign:
    """A copy of the campaign at `home`, with other settings, which the file does not have; the pool is the same."""
    shutil.copytree(campaign.home.path, home)
    return with_settings(replace(campaign, home=Location(str(home))), **settings)


def with_settings(campaign: Campaign, **settings: Any) -> Campaign:
    """The campaign with these settings from now on. It is not asked whether they may change."""
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return replace(campaign, config=override(campaign.config, given, "test")) if given else campaign
