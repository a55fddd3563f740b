"""Pools of any size out of a few shards, and campaigns on them that are ready to be scored."""

import io
import shutil
import tarfile
from collections.abc import Iterator
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.toml import override
from tests.conftest import pretend_trained


def repeated(sources: list[Path], num_shards: int, folder: Path) -> list[Path]:
    """So many copies of these shards, one after another: links to one file are refused as a pool."""
    folder.mkdir(parents=True)
    files = [folder / f"shard-{number:06d}.tar" for number in range(num_shards)]
    for file, source in zip(files, cycle(sources), strict=False):
        shutil.copyfile(source, file)
    return files


def images(sources: list[Path]) -> Iterator[bytes]:
    """The files in these shards."""
    for source in sources:
        with tarfile.open(source) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                yield content.read()


def write_pool(file: Path, sources: list[Path], num_items: int = 0, num_bytes: int = 0) -> Path:
    """A shard of so many items, or of so many bytes: the images of these shards over and over, under new keys."""
    kept = list(images(sources) if num_bytes else islice(images(sources), num_items))
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for number, data in zip(count(), cycle(kept), strict=False):
            if number == num_items if num_items else tar.offset >= num_bytes:
                break
            member = tarfile.TarInfo(f"item-{number:08d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def trained_campaign(home: Path, files: list[Path], settings: dict[str, Any]) -> Campaign:
    """A campaign on these shards, whose train stage is complete with the initial weights."""
    config = override(CampaignConfig(), {"select.budget": 1, **settings}, "bench")
    with tarfile.open(files[0]) as tar:
        member = tar.next()
        assert member is not None
    labels = home.with_suffix(".csv")
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text(f"shard,key,label\n{files[0].name},{member.name.partition('.')[0]},thing\n")
    pattern = f"{files[0].parent}/*.tar"
    campaign = create(str(home), [pattern], str(labels), config, lambda _: None)
    pretend_trained(campaign)
    return campaign
