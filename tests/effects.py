"""Where the effect of an option is looked for: a pool with metadata and labels, and campaigns on it."""

import shutil
from collections.abc import Callable
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.simulation.demo_pools import DemoPool
from tests.rounds import encoded
from tests.tars import archive

BASE = (
    "select.budget=40",
    "salt=00000000000000000000000000000001",
    "train.task=classification",
    "select.diversity=clusters",
)
Look = Callable[["Bench", CampaignConfig], Any]
Look = Callable[["Bench", CampaignConfig], Any]


class Stopped(Exception):  # noqa: N818
    """What was about to be started, instead of its start."""


def stop(*positional: Any, **named: Any) -> None:
    raise Stopped(*positional, named)


class Bench:
    """A pool with metadata and labels, and whatever a look at it needs."""

    def __init__(self, folder: Path, pool: DemoPool, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self._labels, self._numbers, self._seen = pool.labels.read_text(), count(), dict[Any, Any]()
        shutil.copytree(Path(pool.shards[0]).parent, folder / "pool")
        (folder / "pool/more.tar").write_bytes(archive([("more.png", encoded(np.zeros((8, 8), np.uint8)))]))
        rows = [f"digits-{n:05d}.tar,{'ab'[n % 2]}\n" for n in range(8)]
        (folder / "sources.csv").write_text("shard,source\n" + "".join(rows))
        # The lowest logits of `picked` are the first in each shard.
        never = [f"digits-{n:05d}.tar,{225 * n + key:06d}\n" for n in range(8) for key in range(6)]
        (folder / "never.csv").write_text("shard,key\n" + "".join(never))
        settings = [f"pool.shards=['{folder}/pool/digits-*.tar']", *pool.settings, *BASE]
        self.base = override(CampaignConfig(), parse_settings(settings), "test")

    def campaign(self, config: CampaignConfig) -> Campaign:
        """A new campaign on the digits. Its labels name the shards as the configuration has them named."""
        home, prefix = self.folder / str(next(self._numbers)), "pool/" if config.pool.root else ""
        labels = home.with_suffix(".csv")
        labels.write_text(self._labels.replace("digits-", f"{prefix}digits-"))
        return create(str(home), [], str(labels), config, lambda _: None)

    @cached_property
    def made(self) -> Campaign:
        return self.campaign(self.base)

    def unchanged(self, look: Look, config: CampaignConfig) -> Any:
        """What is seen with this configuration, looked at again every time."""
        key = look, config.model_dump_json()
        if key not in self._seen:
            self._seen[key] = look(self, config)
            assert look(self, config) == self._seen[key]
        return self._seen[key]
