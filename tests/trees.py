"""Small trees in the layouts of the field's data sets, made of real images."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from engine.datasets.cifar import SUPER_CLASSES
from engine.datasets.train_ids import CAMVID_CODES

DATA = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[2] / "shared/data"))
WNIDS = ["n01440764", "n01443537", "n01484850"]
LABEL_IDS = np.array([23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 33, 4], np.uint8)
"""Those of Cityscapes for CamVid's, void last: it is a static object there."""
STREET_IDS = np.array([10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 18, 255], np.uint8)
"""The train ids of the same."""
CODES = sorted(code for text in (*CAMVID_CODES.values(), "Void") for code in text.split())
_FIRST = ["Sky", "Building", "Column_Pole", "Road", "Sidewalk", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian"]
CODE_IDS = np.array([CODES.index(code) for code in (*_FIRST, "Bicyclist", "Void")], np.uint8)


class Expected(NamedTuple):
    """What an image of a source becomes: its label, its bytes, or where it is an array None, and its train ids."""

    label: str
    data: bytes | None
    ids: Any = None


Tree = dict[str, dict[str, Expected]]
"""By part and source."""


@cache
def real(name: str, suffix: str) -> list[bytes]:
    """The files with a suffix in the first shard of a set below VAAL_DATA; skips where it is absent."""
    shard = DATA / name
    if not shard.exists():
        pytest.skip(f"no {name} below VAAL_DATA or ../shared/data")
    with tarfile.open(shard) as tar:
        members = [member for member in tar.getmembers() if member.name.partition(".")[2] == suffix][:64]
        return [file.read() for member in members if (file := tar.extractfile(member))]


def write(file: Path, data: bytes) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return data


def png(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def pixels_of(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def _cifar(folder: Path, base: str, files: dict[str, list[str]], names: list[str], meta: str, key: str) -> Tree:
    images, tree, place = real("cifar10/train-00000.tar", "jpg"), Tree(), 0
    for part, batches in files.items():
        tree[part] = {}
        for batch in batches:
            rows, labels = [], []
            for _ in range(4):
                rows.append(pixels_of(images[place]).transpose(2, 0, 1).reshape(-1))
                labels.append((7 * place) % len(names))
                tree[part][f"{part}/{len(tree[part])}"] = Expected(names[labels[-1]], None, pixels_of(images[place]))
                place += 1
            write(folder / base / batch, pickle.dumps({"data": np.stack(rows), key: labels}))
    words = "label_names" if key == "labels" else "fine_label_names"
    write(folder / base / meta, pickle.dumps({words: names}))
    return tree


def cifar10(folder: Path) -> Tree:
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    batches = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
    return _cifar(folder, "cifar-10-batches-py", batches, names, "batches.meta", "labels")


def cifar100(folder: Path) -> Tree:
    batches = {"train": ["train"], "test": ["test"]}
    return _cifar(folder, "cifar-100-python", batches, sorted(SUPER_CLASSES.split()), "meta", "fine_labels")


def caltech256(folder: Path) -> Tree:
    """Two classes and clutter. The parts are the seed's to draw: all is listed as train."""
    photos, found = real("photos/pool-00000.tar", "jpg"), {}
    for number, name in enumerate(("001.ak47", "002.american-flag", "257.clutter")):
        for n in range(5):
            source = f"256_ObjectCategories/{name}/{name[:3]}_{n:04d}.jpg"
            data = write(folder / source, photos[number * 5 + n])
            if number < 2:
                found[source] = Expected(name[4:], data)
    write(folder / "256_ObjectCategories/002.american-flag/RENAME2", b"text")
    write(folder / "256_ObjectCategories/002.american-flag/more/x.jpg", photos[20])
    return {"train": found, "test": {}}


def imagenet(folder: Path, *, is_flat: bool = False) -> Tree:
    """Three classes; one image of train is a PNG by the name of a JPEG, as in the real one."""
    photos, tree = real("photos/pool-00000.tar", "jpg"), Tree(train={}, test={})
    for number, wnid in enumerate(WNIDS):
        for n in range(3):
            source, data = f"train/{wnid}/{wnid}_{n}.JPEG", photos[number * 3 + n]
            if (number, n) == (0, 0):
                data = png(pixels_of(data)[:64, :64])
            tree["train"][source] = Expected(wnid, write(folder / source, data))
        name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        source = f"val/{name}" if is_flat else f"val/{wnid}/{name}"
        tree["test"][source] = Expected(wnid, write(folder / source, photos[30 + number]))
    if is_flat:
        kind = np.dtype([("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")])
        # The kit's numbers are not in the order of the ids, and later ones are of classes of classes.
        rows = np.array([(3, WNIDS[0], 0), (1, WNIDS[1], 0), (2, WNIDS[2], 0), (1001, "n00000001", 3)], kind)
        devkit = folder / "ILSVRC2012_devkit_t12/data"
        devkit.mkdir(parents=True)
        savemat(devkit / "meta.mat", {"synsets": rows})
        write(devkit / "ILSVRC2012_validation_ground_truth.txt", b"3\n1\n2\n")
    return tree


def _scenes(name: str, count: int) -> list[tuple[bytes, Any]]:
    """Real street scenes, a quarter of their size so that tests are quick, as PNG; with their ids."""
    images, masks = real("camvid/train-00000.tar", "jpg"), real("camvid/train-00000.tar", "seg.png")
    pairs = list(zip(images, masks, strict=True))[:count]
    return [(png(pixels_of(image)[::2, ::2]), pixels_of(mask)[::2, ::2]) for image, mask in pairs]


def cityscapes(folder: Path) -> Tree:
    tree, scenes = Tree(train={}, test={}), _scenes("cityscapes", 5)
    for place, (image, ids) in enumerate(scenes):
        part, split, city = ("test", "val", "ulm") if place == 4 else ("train", "train", ("aachen", "bonn")[place % 2])
        stem = f"{city}_000000_{place:06d}"
        source = f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png"
        tree[part][source] = Expected("mask", write(folder / source, image), STREET_IDS[ids])
        masks = folder / f"gtFine/{split}/{city}"
        write(masks / f"{stem}_gtFine_labelIds.png", png(LABEL_IDS[ids]))
        for other in ("color.png", "instanceIds.png", "polygons.json"):
            write(masks / f"{stem}_gtFine_{other}", b"not read")
    return tree


def bdd100k(folder: Path) -> Tree:
    tree = Tree(train={}, test={})
    images = real("camvid/train-00000.tar", "jpg")
    for place, mask in enumerate(real("camvid/train-00000.tar", "seg.png")[:4]):
        part, split = ("test", "val") if place == 3 else ("train", "train")
        source, ids = f"images/10k/{split}/{place:08x}-0.jpg", STREET_IDS[pixels_of(mask)]
        tree[part][source] = Expected("mask", write(folder / source, images[place]), ids)
        write(folder / f"labels/sem_seg/masks/{split}/{place:08x}-0.png", png(ids))
    return tree


def camvid(folder: Path, *, is_fastai: bool = False) -> Tree:
    tree, scenes = Tree(train={}, test={}) if is_fastai else Tree(train={}, val={}, test={}), _scenes("camvid", 5)
    for place, (image, ids) in enumerate(scenes):
        part = ("train", "train", "train", "test", "test" if is_fastai else "val")[place]
        name, expected = f"0001TP_{place:06d}", np.where(ids == 11, 255, ids)
        source = f"images/{name}.png" if is_fastai else f"{part}/{name}.png"
        tree[part][source] = Expected("mask", write(folder / source, image), expected)
        if is_fastai:
            write(folder / f"labels/{name}_P.png", png(CODE_IDS[ids]))
        else:
            write(folder / f"{part}annot/{name}.png", png(ids))
    if is_fastai:
        write(folder / "codes.txt", "\n".join(CODES).encode())
        write(folder / "valid.txt", "\n".join(source.partition("/")[2] for source in tree["test"]).encode())
    return tree


TREES: dict[str, Callable[[Path], Tree]] = {
    "cifar10": cifar10, "cifar100": cifar100, "caltech256": caltech256, "imagenet": imagenet,
    "imagenet flat": lambda folder: imagenet(folder, is_flat=True), "cityscapes": cityscapes, "bdd100k": bdd100k,
    "camvid": camvid, "camvid fastai": lambda folder: camvid(folder, is_fastai=True),
}  # fmt: skip
"""By the name of a data set, and what is special."""


def official(patch: pytest.MonkeyPatch) -> None:
    """Lets torchvision take files of other images for the official ones of CIFAR: their MD5 is not compared."""
    from torchvision.datasets import CIFAR10, CIFAR100

    for kind in (CIFAR10, CIFAR100):
        patch.setattr(kind, "meta", {**kind.meta, "md5": None})
        for files in ("train_list", "test_list"):
            patch.setattr(kind, files, [[name, None] for name, _ in getattr(kind, files)])
