"""A pool of some ten thousand digits with a few damaged ones, and campaigns on it that wait to be scored."""

import csv
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

from engine.campaign.opening import open_campaign
from engine.scoring.score import score
from tests.conftest import pretend_trained
from tests.faults.driver import run
from tests.rounds import encoded, write_shard

ITEMS_PER_SHARD = 225
DAMAGED_EVERY = 60
SUFFIXES = {"PNG": "png", "JPEG": "jpg"}
SETTINGS = ("image.size=32", "image.channels=1", "select.budget=100", "score.batch_size=64")
"""Digits are 8 x 8; enlarged, they take as long as small photographs."""


class Pool(NamedTuple):
    """Shards in a folder, and labels for a few of their items."""

    folder: Path
    labels: Path

    @property
    def shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.tar"))

    def items(self) -> set[tuple[str, str]]:
        """The shard and the key of every sample, by another reader than the one that is tested."""
        found = set()
        for shard in self.shards:
            with tarfile.open(shard) as tar:
                found |= {(shard.name, Path(name).stem) for name in tar.getnames()}
        return found


def make_pool(folder: Path, copies: int, kind: str = "PNG", *, is_damaged: bool = True) -> Pool:
    """All 1,797 digits that often, each copy moved by a pixel so that no two images are alike; 8 shards a copy.

    Damaged, one image of every 60 is cut off, and one sample in each shard has none.
    """
    folder.mkdir(parents=True)
    pixels = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    for copy in range(copies):
        moved = np.roll(pixels, (copy % 8, copy // 8), axis=(1, 2))
        for first in range(0, len(moved), ITEMS_PER_SHARD):
            members: dict[str, bytes] = {}
            for number in range(first, min(first + ITEMS_PER_SHARD, len(moved))):
                image = encoded(moved[number], kind)
                is_cut = is_damaged and number % DAMAGED_EVERY == 7
                members[f"{copy}{number:05d}.{SUFFIXES[kind]}"] = image[:30] if is_cut else image
            if is_damaged:
                members[f"{copy}no-image.txt"] = b"no image"
            write_shard(folder / f"copy-{copy:02d}-{first // ITEMS_PER_SHARD:02d}.tar", members)
    labels = folder.parent / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = [("copy-00-00.tar", f"0{number:05d}", "x") for number in range(0, 200, 10)]
        csv.writer(file).writerows([("shard", "key", "label"), *rows])
    return Pool(folder, labels)


def make_campaign(home: str, shards: str, labels: Path, *settings: str, **variables: str) -> str:
    """Initialised by the command line. Training is not complete yet."""
    words = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    made = run("init", home, "--pool", shards, "--labels", str(labels), *words, **variables)
    assert made.status == 0, made.errors
    return home


def make_trained(home: Path, pool: Pool, *settings: str) -> str:
    """A local campaign that waits to be scored."""
    make_campaign(str(home), f"{pool.folder}/*.tar", pool.labels, *settings)
    pretend_trained(open_campaign(str(home), []))
    return str(home)


def copy_of(campaign: str, home: Path) -> str:
    """The same campaign elsewhere: all its state is in the folder."""
    shutil.copytree(campaign, home)
    return str(home)


def finish(home: str) -> None:
    """Score what is left, in this process and on the Ray that it is connected to."""
    score(open_campaign(home, []))
