"""docs/models.md: its files are a task learner, and its commands lead from images to picks."""

import os
import re
import shlex
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torchvision import models

from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.models import adapters
from engine.models.task_models import load_task
from engine.simulation.demo_pools import DemoPool
from tests.faults.driver import environment

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()
FILES = {name: text for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)}


def commands(campaign: str) -> list[str]:
    """The commands of the page that name this campaign, and those between them, each in one line."""
    blocks = re.findall(r"(?:^ {4}.*\n)+", PAGE, re.MULTILINE)
    (block,) = (block for block in blocks if campaign in block)
    return re.sub(r"\\\n +", "", block).strip().split("\n")


def run(line: str, *further: str) -> None:
    """A command in a process of its own: a factory is found where the command runs."""
    words = shlex.split(line)
    if words[0] == "vaal":
        words = [sys.executable, "-m", "jobs", *words[1:], *(further if words[1] == "init" else ())]
        line = shlex.join(words)
    ended = subprocess.run(line, shell=True, env=environment(), capture_output=True, text=True, executable="/bin/bash")
    assert ended.returncode == 0, ended.stderr


def write_model(folder: Path) -> None:
    """The files of the page, and the weights that they make of a network with random ones."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    made = "import torch; from my_model import Net; torch.save(Net(10).state_dict(), 'net.pt')"
    for words in (("-c", made), ("save_weights.py",)):
        subprocess.run([sys.executable, *words], check=True, cwd=folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_every_block_of_code_is_a_file_that_runs() -> None:
    assert list(FILES) == ["my_model.py", "save_weights.py"]
    assert PAGE.count("```") == 2 * len(FILES)


def test_the_adapters_are_listed() -> None:
    public = {name for name in vars(adapters) if re.fullmatch(r"(torchvision|timm)_\w+", name)}
    assert public == {*re.findall(r"`((?:torchvision|timm)_\w+)`", PAGE[PAGE.index("| `engine.models.adapters:`") :])}


@pytest.mark.heavy
def test_the_files_of_the_page_are_a_task_learner(folder: Path) -> None:
    write_model(folder)
    (line,) = (line for line in commands("campaigns/mine") if " init " in line)
    given = [value for flag, value in pairwise(shlex.split(line)) if flag == "--set"]
    config = override(CampaignConfig(), parse_settings(given), "page")
    loaded = load_task(config, "cpu")
    assert loaded.num_classes == 10
    # What scores need of a head that is one layer.
    assert loaded.task.linear is not None
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    with torch.no_grad():
        logits_BC = loaded.task(loaded.preprocessing(torch.from_numpy(pixels_BHWC)))
    assert logits_BC.shape == (6, 10)
    kept = safetensors.torch.load_file(folder / "weights.safetensors")
    assert {name.partition(".")[0] for name in kept} == {"net"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_files_of_the_page_score_and_pick(folder: Path, pool: DemoPool) -> None:
    write_model(folder)
    (folder / "pool").symlink_to(Path(pool.shards[0]).parent)
    (folder / "labels.csv").symlink_to(pool.labels)
    names = [f'"{number}"' for number in range(10)]
    further = ("--set", f"task.classes=[{','.join(names)}]", "--set", "image.size=16")
    for line in commands("campaigns/mine"):
        run(line, *further)
    picks = pq.read_table(folder / "campaigns/mine/rounds/000/selection/selection.parquet").to_pylist()
    assert len(picks) == 100
    assert {pick["predicted"] for pick in picks} <= {*range(10)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_camvid_leads_from_images_to_picks(folder: Path) -> None:
    data = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[3] / "shared/data")) / "camvid"
    if not data.exists():
        pytest.skip("no camvid below VAAL_DATA or ../shared/data")
    keys = []
    for kind in ("images", "masks"):
        (folder / "camvid" / kind).mkdir(parents=True)
    with tarfile.open(data / "train-00000.tar") as tar:
        for member in [tar.next() for _ in range(120)]:
            content = member and tar.extractfile(member)
            assert member
            assert content
            key, suffix = member.name.split(".", 1)
            kind, name = ("images", member.name) if suffix == "jpg" else ("masks", f"{key}.png")
            (folder / "camvid" / kind / name).write_bytes(content.read())
            keys += [key] if suffix == "jpg" else []
    lines = [f"camvid-00000.tar,{key}" for key in sorted(keys)[:30]]
    (folder / "first.csv").write_text("\n".join(["shard,key", *lines]))
    torch.manual_seed(0)
    network = models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=11)
    safetensors.torch.save_file(network.state_dict(), folder / "lraspp.safetensors")
    for line in commands("campaigns/camvid --pool"):
        run(line)
    picks = pq.read_table(folder / "campaigns/camvid/rounds/000/selection/selection.parquet").to_pylist()
    assert len(picks) == 20
    assert not {pick["key"] for pick in picks} & {*sorted(keys)[:30]}
