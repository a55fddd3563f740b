"""Experiments with masks: what they read, and what is refused in one line."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base
from sklearn.datasets import load_digits

from engine.config.input_options import ImageConfig
from engine.errors import ConfigError, InputError, VaalError
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.pool.mask_files import read_ids
from engine.simulation.experiment import Experiment
from engine.simulation.measuring import MIOU, judge
from engine.simulation.pixel_learners import Training
from engine.simulation.setups import setup_of
from engine.simulation.trial_campaign import ground_of
from engine.simulation.worlds import load
from tests.engine.simulation.test_experiment import read
from tests.masks import CLASSES, VOID, mask_of
from tests.rounds import encoded, write_shard

MASKS = f"""
budget = 4
rounds = 1
seeds = 6
tasks = ["unet"]
task_steps = 8
strategies = ["random", "entropy"]
[pool]
shards = "{{0}}/s.tar"
[test]
size = 8
[first_labels]
count = 6
[campaign]
image.size = 16
image.channels = 1
handoff.question.task = "mask"
handoff.question.classes = {CLASSES}
labels.masks = "member:m.png"
labels.void = [{VOID}]
train.task = "segmentation"
"""


def turned(orientation: int) -> bytes:
    """An image of 8 x 8 pixels with this EXIF orientation."""
    stream, exif = io.BytesIO(), Image.Exif()
    exif[Base.Orientation] = orientation
    Image.new("L", (8, 8)).save(stream, "PNG", exif=exif)
    return stream.getvalue()


def experiment_of(folder: Path, text: str = MASKS, bad: bytes | None = None, image: bytes = b"") -> Experiment:
    files: dict[str, bytes] = {}
    for number, pixels in enumerate(load_digits().images[:30]):
        files[f"{number:03d}.png"] = encoded((pixels * 15).astype(np.uint8))
        if number == 7:
            files["007.png"] = image or files["007.png"]
        files[f"{number:03d}.m.png"] = bad if bad is not None and number == 7 else encoded(mask_of(pixels))
    write_shard(folder / "s.tar", files)
    return read(folder, text.format(folder))


def test_a_pool_has_images_and_masks_byte_for_byte(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path)
    ground = ground_of(load(experiment), experiment, 0, str(tmp_path / "one"))
    digits = load_digits().images
    (shard,) = list_shards([f"{tmp_path}/one/pool/*.tar"], f"{tmp_path}/one/pool")[0]
    items = list(read_shard(shard, ImageConfig(size=16, channels=1), companion="m.png"))
    assert [item.key for item in items] == [key for _, key in ground.setup.pool.names()]
    assert len(items) == 22
    for item, mask in zip(items, ground.setup.pool.mask_N, strict=True):
        assert item.companions == (mask,) == (encoded(mask_of(digits[int(item.key)])),)


def test_a_mask_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = list[bytes]()

    def counted(content: bytes, max_pixels: int) -> object:
        decoded.append(content)
        return read_ids(content, max_pixels)

    for module in ("engine.pool.mask_source", "engine.simulation.pixel_pools"):
        monkeypatch.setattr(f"{module}.read_ids", counted)
    load(experiment_of(tmp_path))
    assert len(decoded) == 30


def test_an_image_that_its_exif_turns_has_no_mask_as_it_is_stored(tmp_path: Path) -> None:
    symmetric = encoded(np.eye(8, dtype=np.uint8))
    with pytest.raises(InputError, match="item 007: the mask is of an image that its EXIF turns; write both upright"):
        load(experiment_of(tmp_path, image=turned(6)))
    # Transposed, this mask is the same.
    assert load(experiment_of(tmp_path, image=turned(5), bad=symmetric)).items.mask_N[7] == symmetric


@pytest.mark.heavy
def test_what_counts_is_miou_at_the_size_of_the_masks(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path)
    world = load(experiment)
    setup = setup_of(world, experiment, 0)
    train = setup.pool.take(setup.first)
    judged = judge(Training("unet", 3, seed=0, steps=8), train, train.label_N, setup.test, world.masks)
    assert judged.metric == MIOU
    assert judged.to_json(world.learned)["classes"].keys() == set(CLASSES)
    assert 0 < judged.value < 1
    assert judged.value == pytest.approx(np.mean([iou for iou in judged.by_class if iou is not None]))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('labels.masks = "member:m.png"', "", "labels.masks is not member:SUFFIX"),
        ("[test]", "[oracle]\nnoise = 0.1\n[test]", "oracle.noise"),
        ('["unet"]', '["small"]', "small needs pool.shards: it sees pixels"),
        ("count = 6", 'kind = "biased"\ncount = 6', "first_labels.kind = biased"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in MASKS
    with pytest.raises(ConfigError) as refused:
        experiment_of(tmp_path, MASKS.replace(old, new))
    assert words in str(refused.value)
    assert "experiment.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("bad", "words"),
    [(b"", "item 007: the mask"), (encoded(np.full((8, 8), 77, np.uint8)), "item 007: the mask has ids 77")],
)
def test_what_is_wrong_with_a_mask_is_one_line(tmp_path: Path, bad: bytes, words: str) -> None:
    experiment = experiment_of(tmp_path, bad=bad)
    refused: pytest.ExceptionInfo[VaalError]
    with pytest.raises(InputError, match=words) as refused:
        load(experiment)
    assert "\n" not in str(refused.value)
