"""The mask of an image: where it is looked for, which way up it is, and why it may be none of this image."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import ConfigError
from engine.pool.mask_files import MaskError
from engine.pool.mask_source import MaskSource, mask_source, resized
from engine.pool.samples import Item
from engine.storage.location import Location

CLASSES = ["road", "sky", "tree"]
TASK = {
    "train.task": "segmentation",
    "handoff.question": {"task": "mask", "classes": CLASSES},
    "score.acquisition": ["entropy"],
    "select.acquisition": "entropy",
}
IDS = np.array([[0, 1, 2, 255], [0, 0, 1, 1], [2, 2, 2, 255]], np.uint8)


def png(pixels: Any, orientation: int = 1, kind: str = "PNG") -> bytes:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[Base.Orientation] = orientation
    Image.fromarray(np.asarray(pixels)).save(stream, kind, exif=exif)
    return stream.getvalue()


def item(*companions: bytes, orientation: int = 1, kind: str = "PNG") -> Item:
    content = png(np.zeros((*IDS.shape, 3), np.uint8), orientation, kind)
    return Item("a/b", 0, len(content), content, "", companions=companions)


def source(home: Path, masks: str = "", **settings: Any) -> MaskSource:
    given = {f"labels.{name}": value for name, value in {"masks": masks, **settings}.items()}
    found = mask_source(override(CampaignConfig(), {**TASK, **given}, "test"), Location(str(home)))
    assert found is not None
    return found


def test_a_mask_is_a_file_of_the_sample_or_of_a_folder_by_key_or_by_label(tmp_path: Path) -> None:
    (tmp_path / "masks/a").mkdir(parents=True)
    (tmp_path / "masks/a/b.png").write_bytes(png(IDS))
    (tmp_path / "masks/other.PNG").write_bytes(png(np.full_like(IDS, 1)))
    beside, folder = source(tmp_path, "member:.Seg.png"), source(tmp_path, f"{tmp_path}/masks")
    assert beside.member == "seg.png"
    assert np.array_equal(beside.of(item(png(IDS)), "mask"), IDS)
    assert np.array_equal(folder.of(item(), "mask"), IDS)
    assert (folder.of(item(), "other.PNG") == 1).all()
    # Without the ids of void the classes have the ids 0, 2 and 3.
    found = source(tmp_path, "member:m", void=[1, 255]).of(item(png(np.array([[0, 1, 2, 3]] * 3, np.uint8))), "")
    assert found.tolist() == [[0, 255, 1, 2]] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_mask_of_a_file_is_turned_like_its_image(tmp_path: Path, orientation: int, kind: str) -> None:
    """As Pillow turns the image."""
    given = item(png(IDS), orientation=orientation, kind=kind)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(png(IDS, orientation)))))
    assert np.array_equal(source(tmp_path, "member:m").of(given, "mask"), expected)
    # One that is upright already says so by its sides.
    if orientation in (5, 6, 7, 8):
        assert np.array_equal(source(tmp_path, "member:m").of(given._replace(companions=(png(IDS.T),)), "mask"), IDS.T)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_that_is_written_lies_over_its_image_as_it_is_stored(tmp_path: Path, orientation: int) -> None:
    given, made = item(png(IDS), orientation=orientation), source(tmp_path, "member:m")
    written = made.file_of(given, "mask")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(written))), IDS)


@pytest.mark.parametrize("orientation", [6, 3])
def test_shapes_are_drawn_one_over_another_on_the_upright_image(tmp_path: Path, orientation: int) -> None:
    """So annotators saw it."""
    shape = (4, 3) if orientation == 6 else (3, 4)
    ids, one = np.full(shape, 255, np.uint8), np.zeros(shape, np.uint8)
    ids[0, :2], one[:2, 0] = (1, 2), 255
    (tmp_path / "votes/masks").mkdir(parents=True)
    (tmp_path / "votes/masks/ids.png").write_bytes(png(ids))
    (tmp_path / "votes/masks/one.png").write_bytes(png(one))
    shapes = [
        {"label": "road", "polygon": [[0, 1], [2, 1], [2, 3], [0, 3]]},
        {"label": "", "mask": "votes/masks/ids.png"},
        {"label": "tree", "mask": "votes/masks/one.png"},
        {"label": "sky", "mask": {"counts": [4, 1, shape[0] * shape[1] - 5], "size": list(shape)}},
    ]
    expected = np.full(shape, 255)
    expected[1:3, :2] = 0
    expected[0, :2] = (1, 2)
    expected[:2, 0] = 2
    expected[4 % shape[0], 4 // shape[0]] = 1
    found = source(tmp_path, "member:m").of(item(orientation=orientation), json.dumps(shapes))
    assert np.array_equal(found, expected)
    assert (source(tmp_path).of(item(), "[]") == 255).all()


@pytest.mark.parametrize(
    ("masks", "companions", "label", "why"),
    [
        ("member:m", (), "mask", "is not there: the sample has no file .m; add it to the shard, retract the label, or"),
        ("member:m", (png(IDS), png(IDS)), "mask", "is 2 files .m of the sample, and should be one"),
        ("member:m", (b"",), "mask", "is empty or has more than 1 MiB; put the masks into a folder, and name it in la"),
        (
            "member:m",
            (png(IDS[:, :3]),),
            "mask",
            "has 3 x 3 pixels, and its image has 4 x 3; give the mask at the size",
        ),
        ("member:m", (png(IDS.T),), "mask", "has 3 x 4 pixels, and its image has 4 x 3; give the mask at the size"),
        ("member:m", (png(IDS, kind="JPEG"),), "mask", "is a JPEG, whose compression changes the ids of pixels"),
        ("member:m", (png(IDS + 3),), "mask", r"has ids 5 \(33.3% of the pixels\), 3 \("),
        ("", (), "car", "is not there: 'a/b.png'; --set labels.masks=FOLDER, or member:SUFFIX for files of samples"),
        ("FOLDER", (), "mask", "cannot be read: .*/a/b.png: "),
        ("FOLDER", (), "../x.png", "is '../x.png', which leads out of .*; name a file in it"),
        ("FOLDER", (), '[{"label": "sky", "mask": "/x.png"}]', "is '/x.png', which leads out of"),
        ("", (), '[{"label": "moon", "polygon": []}]', "has a shape of class 'moon', and the classes are road, sky, t"),
        ("", (), '[{"polygon": []}]', "has a shape without a class; give it one"),
        ("", (), '[{"label": "sky", "mask": "votes/masks/../../x.png"}]', "is 'votes/masks/../../x.png', which leads"),
        ("", (), '[{"label": "sky", "mask": "votes/masks/1.png"}]', "cannot be read: .*votes/masks/1.png: "),
    ],
)
def test_what_is_no_mask_of_this_image_is_refused(
    tmp_path: Path, masks: str, companions: tuple[bytes, ...], label: str, why: str
) -> None:
    (tmp_path / "x.png").write_bytes(png(IDS))
    given = source(tmp_path, masks.replace("FOLDER", f"{tmp_path}/masks"))
    with pytest.raises(MaskError, match=f"^{why}"):
        given.of(item(*companions), label)


def test_a_mask_is_named_by_its_file(tmp_path: Path) -> None:
    kept = [{"label": "sky", "mask": "votes/masks/1.png"}, {"label": "sky", "polygon": []}]
    found = source(tmp_path, "member:m")
    assert found.place_of("a", json.dumps(kept)) == "votes/masks/1.png"
    assert found.place_of("a", json.dumps(kept[1:])) == "the shapes of its label"
    assert found.place_of("a", "mask") == "a.m"


def test_a_mask_made_smaller_has_only_ids_that_were_there() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 7, 255], np.uint8), (30, 50))
    found = resized(mask, 10, 10)
    expected = [mask[int(3 * (row + 0.5)), int(5 * (column + 0.5))] for row in range(10) for column in range(10)]
    assert found.flatten().tolist() == expected
    assert np.array_equal(resized(found, 20, 30)[::2, ::3], found)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"handoff.question": {"task": "mask"}}, "train.task=segmentation needs the names of two classes or more"),
        ({"handoff.question": {"task": "class"}}, "train.task=segmentation does not learn from answers of handoff.que"),
        ({"labels.masks": "member:PNG"}, r"labels.masks=member:PNG: .png are the images \(image.suffixes\)"),
        ({"labels.masks": "member:."}, "labels.masks=member:. needs the suffix of the files, for example member:seg"),
        ({"train.task_network": "small"}, "train.task_network=small is not for train.task=segmentation; use auto, un"),
        (
            {"select.diversity": "class_balanced"},
            "select.diversity=class_balanced: an image with a mask has many classes",
        ),
        ({"pool.embeddings": "member:npy"}, "train.task=segmentation learns from pixels; --set train.input=pixels"),
        (
            {"train.task": "classification", "handoff.question": {"task": "class"}, "train.task_network": "unet"},
            "train.task_network=unet is not for train.task=classification; it learns masks: use auto, small, resnet18",
        ),
    ],
)
def test_options_that_do_not_fit_masks_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        override(CampaignConfig(), {**TASK, **settings}, "test")


def test_only_a_task_learner_of_masks_has_a_source_of_them(tmp_path: Path) -> None:
    assert mask_source(CampaignConfig(), Location(str(tmp_path))) is None
