"""Data sets with a folder a class: Caltech-256 and ImageNet."""

import io
import re
from functools import partial

import numpy as np

from engine.config.texts import plural, some
from engine.datasets.opened import TEST, TRAIN, Opened, content_of, folder_with, image_of
from engine.errors import InputError, one_line
from engine.packing.entries import Entry
from engine.pool.samples import is_image_name
from engine.storage.location import Location

TEST_IMAGES = 12
"""Of each class of Caltech-256, or half of a class with fewer than 24: a tenth of all."""
CLUTTER = "clutter"
"""The folder of Caltech-256 that is no class of objects: left out."""
CALTECH, IMAGENET = "256_ObjectCategories", "ILSVRC2012_devkit_t12/data"
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_NUMBERED, _WNID = re.compile(r"\d{3}\.(.+)"), re.compile(r"(n\d{8})")
"""Names of the folders of classes."""
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")


def caltech256(source: Location, seed: int) -> Opened:
    """Caltech-256 without clutter. There is no official split: TEST_IMAGES of each class, drawn by the seed, are the
    test set, and a class's draw depends on its own images alone.

    Raises InputError for another layout, and an empty class.
    """
    layout = f"{CALTECH}/001.ak47/*.jpg and 256 more folders"
    base = source if source.name == CALTECH else folder_with(source, CALTECH, layout, ("", "caltech256")) / CALTECH
    classes, left_out = _class_images(base, _NUMBERED, layout), _left_out(base, _NUMBERED, "NNN.NAME, like 001.ak47")
    classes.pop(CLUTTER, None)
    parts: dict[str, list[Entry]] = {TRAIN: [], TEST: []}
    for number, entries in enumerate(classes.values()):
        order = np.random.default_rng([seed, number]).permutation(len(entries))
        is_test = {*order[: min(TEST_IMAGES, len(entries) // 2)].tolist()}
        for place, entry in enumerate(entries):
            parts[TEST if place in is_test else TRAIN].append(entry)
    return Opened(parts, list(classes), partial(image_of, base), is_remote=not base.is_local, left_out=left_out)


def imagenet(source: Location, _seed: int) -> Opened:
    """ImageNet-1k: classes are WordNet ids, sorted. Its test set is val, whose images lie in a folder a class, or all
    in one beside the development kit.

    Raises InputError for another layout, an empty class, and images of val whose class is not known or that lie
    beside folders of classes.
    """
    layout = "train/nXXXXXXXX/*.JPEG, and val with such folders, or its images and ILSVRC2012_devkit_t12"
    base = folder_with(source, "train", layout)
    folder_with(source, "val", layout)
    train = _class_images(base / "train", _WNID, layout)
    loose = {name: size for name, size in (base / "val").children().items() if is_image_name(name)}
    if loose and (beside := [name for name in (base / "val").folders() if _WNID.fullmatch(name)]):
        why = f"{plural(len(loose), 'image')} beside folders of classes: {some(beside)}"
        raise InputError(f"{base / 'val'}: {why}; finish moving the images into folders, or unpack val again")
    test = _by_devkit(base, loose) if loose else _flat(_class_images(base / "val", _WNID, layout), "val")
    if strangers := {str(entry.label) for entry in test} - train.keys():
        why = f"has classes without a folder in train: {some(sorted(strangers))}"
        raise InputError(f"{base / 'val'}: {why}; unpack the whole of train")
    parts = {TRAIN: _flat(train, "train"), TEST: test}
    words = "a WordNet id, like n01440764"
    left_out = _left_out(base / "train", _WNID, words) + _left_out(base / "val", _WNID, words)
    return Opened(parts, list(train), partial(image_of, base), is_remote=not base.is_local, left_out=left_out)


def _left_out(base: Location, form: re.Pattern[str], words: str) -> tuple[str, ...]:
    """A line on the folders whose name is not of the form of a class; none without such folders."""
    names = [name for name in base.folders() if not form.fullmatch(name)]
    count = plural(len(names), "folder")
    return (f"{base}: {count} left out whose name is not {words}: {some(names)}",) if names else ()


def _class_images(base: Location, form: re.Pattern[str], layout: str) -> dict[str, list[Entry]]:
    """The images that lie in the folder of each class itself, by class; both sorted by file name.

    Args:
        form: of the name of a folder of a class, with the class as its group. Other folders are left out.
    """
    found: dict[str, list[Entry]] = {}
    for name in base.folders():
        if not (match := form.fullmatch(name)):
            continue
        label = match[1]
        files = (base / name).children()
        found[label] = [Entry("", f"{name}/{n}", size, label) for n, size in files.items() if is_image_name(n)]
        if not found[label]:
            raise InputError(f"{base / name}: no image in the folder of this class; unpack the data set again")
    if not found:
        raise InputError(f"{base}: no folder of a class in it; looked for {layout}")
    return found


def _flat(classes: dict[str, list[Entry]], part: str) -> list[Entry]:
    return [entry._replace(source=f"{part}/{entry.source}") for entries in classes.values() for entry in entries]


def _by_devkit(base: Location, files: dict[str, int]) -> list[Entry]:
    """The images of val, all in one folder, with their classes as the development kit has them."""
    devkit = folder_with(base, IMAGENET, f"{IMAGENET} beside val, because val has no folders of classes") / IMAGENET
    wnid_of = _wnids(devkit / "meta.mat")
    lines = content_of(devkit / _GROUND_TRUTH).decode(errors="replace").split()
    found = []
    for name, size in files.items():
        match = _VAL_NAME.fullmatch(name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(lines) or lines[number - 1] not in wnid_of:
            why = f"{_GROUND_TRUTH} has no class of it ({len(lines):,} lines)"
            raise InputError(f"{base / 'val' / name}: {why}; take the image out, or unpack the development kit again")
        found.append(Entry("", f"val/{name}", size, wnid_of[lines[number - 1]]))
    return found


def _wnids(file: Location) -> dict[str, str]:
    """The WordNet id of each class by its number in the ground truth, as text."""
    from scipy.io import loadmat

    try:
        rows = loadmat(io.BytesIO(content_of(file)), squeeze_me=True)["synsets"]
        pairs = zip(rows["ILSVRC2012_ID"], rows["WNID"], strict=True)
        return {str(int(number)): str(wnid) for number, wnid in pairs}
    except InputError:
        raise
    except Exception as error:
        # scipy raises many.
        why = f"not the list of classes of the development kit: {one_line(error)}"
        raise InputError(f"{file}: {why}; unpack ILSVRC2012_devkit_t12.tar.gz again") from error
