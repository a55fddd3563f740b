"""A small campaign whose pool is a glob, and shards that come later."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from engine.campaign.folder import Campaign
from engine.campaign.opening import create, open_campaign
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.pool.manifest import read_shards
from jobs.cli import app
from tests.rounds import encoded, write_shard
from tests.small import SETTINGS

EACH = 16


def new_shard(folder: Path | str, number: int, seed: int | None = None) -> Path:
    """Write s-NUMBER.tar with EACH images of its own; another `seed` gives other bytes."""
    rng = np.random.default_rng([number, seed or 0])
    path = Path(folder) / f"s-{number}.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    items = {f"{EACH * number + n:03d}.png": encoded(rng.integers(0, 256, (8, 8), np.uint8)) for n in range(EACH)}
    write_shard(path, items)
    return path


def glob_campaign(folder: Path, num_shards: int = 3, pool: str = "", **settings: Any) -> Campaign:
    """A campaign on `num_shards` shards that a glob names, six of whose first images have labels; `pool` is the glob of
    shards that are there already."""
    for number in range(0 if pool else num_shards):
        new_shard(folder / "pool", number)
    labels = folder / "labels.csv"
    folder.mkdir(parents=True, exist_ok=True)
    labels.write_text("shard,key,label\n" + "".join(f"s-0.tar,{n:03d},{'ab'[n % 2]}\n" for n in range(6)))
    given = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()}
    config = override(CampaignConfig(), given, "test")
    return create(f"{folder}/campaign", [pool or f"{folder}/pool/*.tar"], str(labels), config, lambda _: None)


def vaal(status: int, *words: str) -> dict[str, Any]:
    """The JSON that a command prints, or of one that is refused its one line as `error`."""
    found = CliRunner().invoke(app, [*words, "--json"])
    assert found.exit_code == status, found.stderr
    if status:
        (line,) = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
        return {"error": line}
    return {**json.loads(found.stdout), "log": found.stderr}


def names_of(campaign: Campaign, number: int) -> list[str]:
    """The shards of a round's pool."""
    return [shard.shard for shard in read_shards(campaign.home).in_round(number)]


def in_next_round(campaign: Campaign) -> Campaign:
    """The campaign in the round after its own, which is ended by hand."""
    (campaign.round_home / "closed.json").write_json({})
    opened = open_campaign(campaign.home.url)
    return replace(campaign, round=opened.round)
