"""`vaal dataset`: what it prints, what it refuses in one line, and a campaign on the masks of its result."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.campaign.opening import open_campaign
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.pool.mask_source import mask_source
from tests.jobs.test_cli import refused, vaal
from tests.trees import TREES, official, pixels_of, png, write


def test_a_campaign_learns_from_the_masks_of_a_data_set(tmp_path: Path) -> None:
    tree, out = TREES["cityscapes"](tmp_path / "in"), tmp_path / "out"
    shown = vaal("dataset", "cityscapes", str(tmp_path / "in"), str(out))
    assert shown.exit_code == 0, shown.output
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert lines == [
        f"Converted: {out}",
        "train 4 images in 1 shard, labels in train-oracle.parquet",
        "test 1 image in 1 shard, labels in test-oracle.parquet",
        "classes 19, in classes.txt",
    ]
    assert f"warning: {tmp_path}/in has 4 images of train, and the official files have 2,975" in shown.stderr
    again = json.loads(vaal("dataset", "cityscapes", str(tmp_path / "in"), str(out), "--json").stdout)
    assert (again["images"], again["changed"]) == ({"train": 4, "test": 1}, False)
    oracle = pq.read_table(out / "train-oracle.parquet")
    pq.write_table(oracle.slice(0, 2), tmp_path / "first.parquet")
    classes = json.dumps((out / "classes.txt").read_text().splitlines())
    made = vaal(
        "init", str(tmp_path / "c"), "--pool", f"{out}/train-*.tar", "--labels", str(tmp_path / "first.parquet"),
        "--set", "train.task=segmentation", "--set", "labels.masks=member:seg.png",
        "--set", "handoff.question.task=mask", "--set", f"handoff.question.classes={classes}",
        "--set", "pool.group=^([^/]+)/", "--set", "select.budget=1", "--set", "image.size=32",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    campaign = open_campaign(str(tmp_path / "c"))
    source = mask_source(campaign.config, campaign.home)
    assert source
    shards, _ = list_shards([f"{out}/*.tar"], "")
    items = [item for shard in shards for item in read_shard(shard, campaign.config.image, "seg.png")]
    found = {item.key: source.of(item, "mask") for item in items}
    for images in tree.values():
        for name, image in images.items():
            key = "/".join(name.split("/")[2:]).removesuffix("_leftImg8bit.png")
            assert np.array_equal(found[key], image.ids)


def _break_cifar(folder: Path) -> None:
    (folder / "cifar-10-batches-py/data_batch_3").write_bytes(pickle.dumps({"data": 1}))


def _mask_with_ids(folder: Path) -> None:
    file = next((folder / "gtFine/train/aachen").glob("*labelIds.png"))
    ids = np.array(pixels_of(file.read_bytes()))
    ids[:9] = 40
    file.write_bytes(png(ids))


def _jpeg_masks(folder: Path) -> None:
    for file in (folder / "labels/sem_seg/masks/train").iterdir():
        file.rename(file.with_suffix(".jpg"))


def _small_mask(folder: Path) -> None:
    file = folder / "labels/sem_seg/masks/train/00000000-0.png"
    file.write_bytes(png(pixels_of(file.read_bytes())[:90]))


def _removed(path: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path).unlink()


def _added(path: str, data: bytes = b"") -> Callable[[Path], object]:
    return lambda folder: write(folder / path, data)


def _cut(path: str, begin: int, end: int | None = None) -> Callable[[Path], object]:
    """Without the bytes from `begin` to `end`, or to the end of the file."""

    def cut(folder: Path) -> None:
        data = (folder / path).read_bytes()
        (folder / path).write_bytes(data[:begin] + (data[end:] if end else b""))

    return cut


def _empty_class(folder: Path) -> None:
    for file in (folder / "256_ObjectCategories/001.ak47").iterdir():
        file.unlink()


def _renamed(path: str, name: str = "x") -> Callable[[Path], object]:
    return lambda folder: (folder / path).rename((folder / path).with_name(name))


def _not_utf_8(folder: Path) -> None:
    for part in ("train", "trainannot"):
        Path(os.fsdecode(os.fsencode(folder / part) + b"/\xff.png")).write_bytes(b"x")


def _every_name_held_out(folder: Path) -> None:
    write(folder / "valid.txt", "\n".join(file.name for file in (folder / "images").iterdir()).encode())


def _one_image_a_class(folder: Path) -> None:
    for file in (folder / "256_ObjectCategories").glob("*/*_000[1-9].jpg"):
        file.unlink()


IMAGE, TRUTH = "256_ObjectCategories/001.ak47/001_0000.jpg", "ILSVRC2012_validation_ground_truth.txt"
STEMS = b"0001TP_000003\n0001TP_000004\n"
PHOTO, SCENE = "images/10k/train/00000000-0.jpg", "leftImg8bit/val/ulm/ulm_000000_000004_leftImg8bit.png"
META, FRAME = "ILSVRC2012_devkit_t12/data/meta.mat", "ulm/ulm_000000_000004"
FAULTS = [
    (
        "cifar10",
        _renamed("cifar-10-batches-py"),
        "no cifar-10-batches-py in it; give the folder that holds cifar-10-batches-py, to which",
    ),
    ("caltech256", _renamed("256_ObjectCategories"), "no 256_ObjectCategories in it; give the folder that holds"),
    ("caltech256", _empty_class, "001.ak47: no image in the folder of this class"),
    ("caltech256", _added(IMAGE), "001_0000.jpg: an empty file"),
    ("caltech256", _added(IMAGE, b"<html>"), "001_0000.jpg: no image by its first bytes"),
    ("imagenet", _added("val/n09999999/x.JPEG"), "val: has classes without a folder in train: n09999999"),
    ("imagenet flat", _added("val/n01440764/x.JPEG"), "val: 3 images beside folders of classes: ILSVRC2012"),
    ("imagenet", _added("train/x.JPEG"), "in/train: 1 image beside folders of classes: x.JPEG; move each into the"),
    ("imagenet", _added("val/x.JPEG"), "in/val: 1 image beside folders of classes: x.JPEG; move each into the folder"),
    ("caltech256", _added("256_ObjectCategories/x.jpg"), "Categories: 1 image beside folders of classes: x.jpg; move"),
    ("imagenet flat", _removed(META), "meta.mat: no such file"),
    ("imagenet flat", _added(META, b"x"), "meta.mat: not the list of classes"),
    ("imagenet flat", _added("val/ILSVRC2012_val_00000004.JPEG"), f"4.JPEG: {TRUTH} has 3 lines; take the image out"),
    (
        "imagenet flat",
        _added(f"ILSVRC2012_devkit_t12/data/{TRUTH}", b"3\n1\n9\n"),
        f"3.JPEG: line 3 of {TRUTH} is '9', no number of a class",
    ),
    ("cityscapes", _mask_with_ids, "Ids.png: has ids 40 ("),
    ("cityscapes", _removed(f"gtFine/val/{FRAME}_gtFine_labelIds.png"), "leftImg8bit.png: no mask gtFine/val/ulm/ulm_"),
    ("bdd100k", _removed("images/10k/train/00000001-0.jpg"), "1-0.png: no image images/10k/train/00000001-0.jpg for"),
    ("bdd100k", _jpeg_masks, "masks/train/00000000-0.jpg: a mask as JPEG, whose compression changes the ids"),
    ("bdd100k", _small_mask, "00000000-0.png: has 240 x 90 pixels, and its image has 240 x 180"),
    ("bdd100k", _cut(PHOTO, 300), f"{PHOTO}: cannot be decoded: the file ends in the JPEG's header; unpack"),
    ("cityscapes", _cut(SCENE, 1000), f"{SCENE}: cannot be decoded: the PNG has no end marker; unpack the data set"),
    ("cityscapes", _cut(SCENE, 900, 950), f"{SCENE}: cannot be decoded: broken data stream when reading image file;"),
    ("camvid", _added("testannot/0001TP_000003.png", b"x"), "0001TP_000003.png: is no PNG"),
    ("caltech256", _renamed("256_ObjectCategories/001.ak47", "003.american-flag"), "003.american-flag: another folder"),
    ("camvid", _not_utf_8, "train: 1 name not in UTF-8; rename the files"),
    ("caltech256", _one_image_a_class, "in: no image of the test set in it; unpack the whole data set"),
    ("camvid fastai", _added("valid.txt", STEMS), "valid.txt: 2 names without an image: 0001TP_000003, 0001TP_000004;"),
    ("camvid fastai", _added("valid.txt", STEMS[:14] + b"0001TP_000004.png"), "valid.txt: 1 name without an image: 00"),
    ("camvid fastai", _added("valid.txt"), "valid.txt: names none of 5 images; give names of files in images, like 00"),
    ("camvid fastai", _every_name_held_out, "valid.txt: names all of 5 images; give names of files in images, like 00"),
    ("camvid fastai", _added("codes.txt", b"Sky\nMoon\n"), "codes.txt: 'Moon' is none of the 32 classes of CamVid"),
]


@pytest.mark.parametrize(("name", "spoil", "line"), FAULTS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_with_a_data_set_is_one_line(
    name: str, spoil: Callable[[Path], object], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(monkeypatch)
    TREES[name](tmp_path / "in")
    spoil(tmp_path / "in")
    assert line in refused(4, "dataset", name.split()[0], str(tmp_path / "in"), str(tmp_path / "out"))


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_files_of_cifar_that_are_not_the_official_ones_are_not_unpickled(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TREES[name](tmp_path / "in")
    first = {"cifar10": "data_batch_1", "cifar100": "train"}[name]
    command, file = ("dataset", name, str(tmp_path / "in"), str(tmp_path / "out")), name.replace("r1", "r-1")
    line = refused(4, *command)
    why = f"{first} is not the official file by its MD5, or is cut off; unpack {file}-python.tar.gz again"
    assert line.endswith(f"{folder}: {why}")
    (tmp_path / "in" / folder / first).unlink()
    official(monkeypatch)
    assert refused(4, *command).endswith(f"{folder}: has no file {first}; unpack {file}-python.tar.gz again")


def test_a_complete_folder_is_reported_with_what_was_compared(tmp_path: Path) -> None:
    tree = TREES["camvid"](tmp_path / "in")
    command = ("dataset", "camvid", str(tmp_path / "in"), str(tmp_path / "out"))
    assert "compared" not in vaal(*command).stdout
    # A correction of the same size is not seen, and the size of a mask is not looked at.
    image = tmp_path / "in" / next(iter(tree["train"]))
    image.write_bytes(image.read_bytes()[::-1])
    (tmp_path / "in/trainannot" / image.name).write_bytes(b"")
    lines = [" ".join(line.split()) for line in vaal(*command).stdout.splitlines()]
    assert lines[0] == f"Complete already: {tmp_path}/out"
    assert lines[-2:] == [
        "compared names and sizes of images, not their contents or masks",
        "if SOURCE was corrected give another FOLDER, or delete this one and run again",
    ]
    image.write_bytes(b"x")
    assert "out: was made of other files than those that are in" in refused(2, *command)


def test_folders_that_are_no_class_or_below_one_are_named_as_left_out(tmp_path: Path) -> None:
    for name, folder, line in (
        ("imagenet", "train/fish", "train: 1 folder left out whose name is not a WordNet id, like n01440764: fish"),
        ("imagenet", "val/fish", "val: 1 folder left out whose name is not a WordNet id, like n01440764: fish"),
        (
            "caltech256",
            "256_ObjectCategories/greg",
            "s: 1 folder left out whose name is not NNN.NAME, like 001.ak47: greg",
        ),
        (
            "caltech256",
            "256_ObjectCategories/001.ak47/greg",
            "s: 1 folder left out below those of classes, with 1 image: 001.ak47/greg",
        ),
        (
            "imagenet",
            "val/n01440764/fish/more",
            "val: 1 folder left out below those of classes, with 1 image: n01440764/fish/more",
        ),
    ):
        source = tmp_path / folder.replace("/", "-")
        TREES[name](source)
        shutil.rmtree(source / "256_ObjectCategories/002.american-flag/more", ignore_errors=True)
        assert "left out" not in vaal("dataset", name, str(source), str(tmp_path / f"{source.name}-before")).output
        write(source / folder / "x.jpg", png(np.zeros((4, 4), np.uint8)))
        shown = vaal("dataset", name, str(source), str(tmp_path / f"{source.name}-out"))
        assert shown.exit_code == 0, shown.output
        assert f"warning: {source}/{folder.partition('/')[0]}: " in shown.stderr
        assert line in shown.stderr


def test_the_images_of_train_are_counted_with_those_left_out(tmp_path: Path) -> None:
    tree = TREES["imagenet"](tmp_path / "in")
    twin, original = next(iter(tree["train"])), next(iter(tree["test"].values()))
    assert original.data
    (tmp_path / "in" / twin).write_bytes(original.data)
    shown = vaal("dataset", "imagenet", str(tmp_path / "in"), str(tmp_path / "out"))
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    count = len(tree["train"])
    assert f"warning: {tmp_path}/in has {count} images of train, and the official" in shown.stderr
    assert f"train {count - 1} of {count} images in 1 shard, labels in train-oracle.parquet" in lines
    assert "left out 1 image of train whose file is in the test set or val too" in lines


def test_a_folder_is_that_of_one_data_set(tmp_path: Path) -> None:
    for name in ("bdd100k", "camvid"):
        TREES[name](tmp_path / name)
    bdd, camvid, out = (str(tmp_path / name) for name in ("bdd100k", "camvid", "out"))
    assert "cifar: no data set that is known; give one of cifar10, cifar100" in refused(2, "dataset", "cifar", bdd, out)
    assert "bdd100k/sets: inside of" in refused(2, "dataset", "bdd100k", bdd, f"{bdd}/sets")
    assert "absent: no such folder; give the one that" in refused(4, "dataset", "bdd100k", f"{bdd}/absent", out)
    assert vaal("dataset", "bdd100k", bdd, out).exit_code == 0
    assert "out: holds bdd100k; give another folder for camvid" in refused(2, "dataset", "camvid", camvid, out)
    for folder in (tmp_path / "bdd100k/images/10k/val", tmp_path / "bdd100k/labels/sem_seg/masks/val"):
        file = next(folder.iterdir())
        file.rename(file.with_stem("another"))
    assert "out: was made of other files than those that are in" in refused(2, "dataset", "bdd100k", bdd, out)
    assert "out: was packed with kind=data set bdd100k, not folder" in refused(2, "pack", bdd, out)
    write(tmp_path / "images/a.png", png(np.zeros((4, 4), np.uint8)))
    assert vaal("pack", str(tmp_path / "images"), str(tmp_path / "pool")).exit_code == 0
    line = refused(2, "dataset", "bdd100k", bdd, str(tmp_path / "pool"))
    assert f"pool: holds what vaal pack made of {tmp_path}/images; give another folder" in line
    (tmp_path / "out/packing/source.json").unlink()
    assert "which vaal dataset did not make; give a new folder" in refused(2, "dataset", "bdd100k", bdd, out)
