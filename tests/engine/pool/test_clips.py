"""Init tells the user of keys that look like frames of clips, and of no others."""

import random
import shlex
from pathlib import Path

import numpy as np
import pytest

from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.pool.clips import FRAMES, example_of_frames
from engine.pool.identity import Groups
from tests.rounds import encoded
from tests.tars import archive

CLIPS = [f"clip{clip:03d}_{frame:06d}" for clip in range(6) for frame in range(0, 300, 10)]


@pytest.mark.parametrize(
    "keys",
    [
        CLIPS,
        random.Random(0).sample(CLIPS, len(CLIPS)),
        [f"2021-05-{day:02d}/cam1/frame{number}" for day in range(1, 4) for number in range(20)],
        [f"v{clip}.{frame}" for clip in range(40) for frame in range(5)],
        CLIPS + [f"{n:06d}" for n in range(100)],
    ],
    ids=["clips", "shuffled", "folders", "short clips", "stills beside them"],
)  # fmt: skip
def test_frames_are_seen_and_the_advice_groups_them(keys: list[str]) -> None:
    example = example_of_frames(keys)
    assert example in keys
    groups = Groups(FRAMES)
    clip = {key for key in keys if groups.of("a.tar", key) == groups.of("a.tar", example)}
    assert 5 <= len(clip) < len(keys) / 2


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [f"{n:06d}" for n in range(1000)],
        [f"cifar_{n:05d}" for n in range(1000)],
        [f"cifar10_{n:05d}" for n in range(1000)],
        [f"cifar10-{split}-{n:06d}" for split in ("test", "train") for n in range(1000)],
        [f"{name}_{n:04d}" for name in ("cat", "dog", "ship") for n in range(300)],
        [f"n{synset:08d}_{n}" for synset in range(9) for n in random.Random(synset).sample(range(20_000), 50)],
        [f"{n:06d}" for n in range(len(CLIPS) + 1)] + CLIPS,
        [f"a{n}_{m}" for n in range(300) for m in range(4)],
        [f"{random.Random(n).getrandbits(128):032x}" for n in range(500)],
        [f"x1_{'9' * 5000}{n}" for n in range(9)],
    ],
    ids=["none", "numbers", "one prefix", "one prefix with a number", "splits", "classes", "synsets", "mostly stills",
         "few", "hashes", "endless numbers"],
)  # fmt: skip
def test_other_keys_are_not_taken_for_frames(keys: list[str]) -> None:
    assert example_of_frames(keys) == ""


def init(folder: Path, keys: list[str], *settings: str) -> list[str]:
    """The lines that init logs of a pool with these keys, whose first five have labels."""
    image = encoded(np.zeros((8, 8), np.uint8))
    folder.mkdir()
    (folder / "a.tar").write_bytes(archive([(f"{key}.png", image) for key in keys]))
    labels = folder / "labels.csv"
    labels.write_text("shard,key,label\n" + "".join(f"a.tar,{key},x\n" for key in keys[:5]))
    config = override(CampaignConfig(), parse_settings(["select.budget=1", *settings]), "test")
    lines: list[str] = []
    create(str(folder / "campaign"), [str(folder / "a.tar")], str(labels), config, lines.append)
    return [line for line in lines if "group" in line]


def test_init_says_it_in_one_line_with_a_setting_to_paste(tmp_path: Path) -> None:
    (line,) = init(tmp_path / "a", CLIPS)
    assert "keys look like frames of clips, for example 'clip000_000290', and pool.group is not set" in line
    *_, option, setting = shlex.split(line)
    assert option == "--set"
    (line,) = init(tmp_path / "b", [*CLIPS, "still"], setting)
    assert line == (
        "pool.group: the labels are of 1 group; of 181 items in their shards 1 have none, for example a.tar/still, and "
        "are a group each"
    )
    assert init(tmp_path / "c", [f"cifar_{n:05d}" for n in range(20)]) == []
