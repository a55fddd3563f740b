"""Data sets with a folder a class: Caltech-256 and ImageNet."""

import io
import re
from functools import partial
from typing import NamedTuple

import numpy as np

from engine.config.texts import plural, some
from engine.datasets.opened import TEST, TRAIN, Opened, below, content_of, folder_with, image_of, walked
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


class _Form(NamedTuple):
    """Of the names of the folders of classes: a pattern with the class as its group, and words for a person."""

    pattern: re.Pattern[str]
    words: str


_NUMBERED = _Form(re.compile(r"\d{3}\.(.+)"), "NNN.NAME, like 001.ak47")
_WNID = _Form(re.compile(r"(n\d{8})"), "a WordNet id, like n01440764")
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")


class _Classes(NamedTuple):
    """The images by class, both sorted by file name, and what was left out, a line each."""

    images: dict[str, list[Entry]]
    left_out: tuple[str, ...]


def caltech256(source: Location, seed: int) -> Opened:
    """Caltech-256 without clutter. There is no official split: TEST_IMAGES of each class, drawn by the seed, are the
    test set, and a class's draw depends on its own number and images alone.

    Raises InputError for another layout, an empty class, two folders of one, and images beside folders of classes.
    """
    layout = f"{CALTECH}/001.ak47/*.jpg and 256 more folders"
    base = source if source.name == CALTECH else folder_with(source, CALTECH, layout, ("", "caltech256")) / CALTECH
    classes, left_out = _classes_of(source, below(source, base), _NUMBERED, layout)
    classes.pop(CLUTTER, None)
    parts: dict[str, list[Entry]] = {TRAIN: [], TEST: []}
    for entries in classes.values():
        number = int(entries[0].source.split("/")[-2].partition(".")[0])
        order = np.random.default_rng([seed, number]).permutation(len(entries))
        is_test = {*order[: min(TEST_IMAGES, len(entries) // 2)].tolist()}
        for place, entry in enumerate(entries):
            parts[TEST if place in is_test else TRAIN].append(entry)
    return Opened(parts, list(classes), partial(image_of, source), is_remote=not source.is_local, left_out=left_out)


def imagenet(source: Location, _seed: int) -> Opened:
    """ImageNet-1k: classes are WordNet ids, sorted. Its test set is val, whose images lie in a folder a class, or all
    in one beside the development kit.

    Raises InputError for another layout, an empty class, images beside folders of classes, and images of val whose
    class is not known.
    """
    layout = "train/nXXXXXXXX/*.JPEG, and val with such folders, or its images and ILSVRC2012_devkit_t12"
    for part in ("train", "val"):
        folder_with(source, part, layout)
    train, left_out = _classes_of(source, "train/", _WNID, layout)
    if loose := _loose_images(source / "val", _WNID):
        test, beside_test = _by_devkit(source, loose), _strange_folders(source / "val", _WNID)
    else:
        classes, beside_test = _classes_of(source, "val/", _WNID, layout)
        test = _all_of(classes)
    if strangers := {str(entry.label) for entry in test} - train.keys():
        why = f"has classes without a folder in train: {some(sorted(strangers))}"
        raise InputError(f"{source / 'val'}: {why}; unpack the whole of train")
    parts, left_out = {TRAIN: _all_of(train), TEST: test}, left_out + beside_test
    return Opened(parts, list(train), partial(image_of, source), is_remote=not source.is_local, left_out=left_out)


def _loose_images(base: Location, form: _Form) -> dict[str, int]:
    """The size of each image that lies in a folder itself. Raises InputError if folders of classes are beside them."""
    loose = {name: size for name, size in base.children().items() if is_image_name(name)}
    if loose and any(form.pattern.fullmatch(name) for name in base.folders()):
        why = f"{plural(len(loose), 'image')} beside folders of classes: {some(loose)}"
        raise InputError(f"{base}: {why}; move each into the folder of its class, or unpack the data set again")
    return loose


def _strange_folders(base: Location, form: _Form) -> tuple[str, ...]:
    """A line on the folders whose name is not of the form of a class; none without such folders."""
    names = [name for name in base.folders() if not form.pattern.fullmatch(name)]
    count = plural(len(names), "folder")
    return (f"{base}: {count} left out whose name is not {form.words}: {some(names)}",) if names else ()


def _classes_of(source: Location, path: str, form: _Form, layout: str) -> _Classes:
    """The images that lie in the folder of each class itself. Those in folders below it are left out, as Caltech-256's
    authors leave out theirs.

    `path` is that of the folders' folder below SOURCE: empty, or with a slash at its end.
    """
    base = source / path.rstrip("/") if path else source
    _loose_images(base, form)
    found, deeper = dict[str, list[Entry]](), dict[str, int]()
    for name in base.folders():
        if not (match := form.pattern.fullmatch(name)):
            continue
        label = match[1]
        if label in found:
            raise InputError(f"{base / name}: another folder of class {label!r}; merge the two, or rename one")
        own, *lower = walked(base / name)
        images = {n: size for n, size in own.files.items() if is_image_name(n)}
        if not images:
            raise InputError(f"{base / name}: no image in the folder of this class; unpack the data set again")
        found[label] = [Entry("", f"{path}{name}/{n}", size, label) for n, size in images.items()]
        counts = {f"{name}/{folder.path}": sum(map(is_image_name, folder.files)) for folder in lower}
        deeper |= {place: count for place, count in counts.items() if count}
    if not found:
        raise InputError(f"{base}: no folder of a class in it; looked for {layout}")
    return _Classes(found, _strange_folders(base, form) + _deeper_folders(base, deeper))


def _deeper_folders(base: Location, deeper: dict[str, int]) -> tuple[str, ...]:
    """A line on the folders with images below those of classes; none without such folders."""
    count, images = plural(len(deeper), "folder"), plural(sum(deeper.values()), "image")
    return (f"{base}: {count} left out below those of classes, with {images}: {some(deeper)}",) if deeper else ()


def _all_of(classes: dict[str, list[Entry]]) -> list[Entry]:
    return [entry for entries in classes.values() for entry in entries]


def _by_devkit(source: Location, files: dict[str, int]) -> list[Entry]:
    """The images of val, all in one folder, with their classes as the development kit has them."""
    devkit = folder_with(source, IMAGENET, f"{IMAGENET} beside val, because val has no folders of classes") / IMAGENET
    wnid_of = _wnids(devkit / "meta.mat")
    lines = content_of(devkit / _GROUND_TRUTH).decode(errors="replace").split()
    found = []
    for name, size in files.items():
        match = _VAL_NAME.fullmatch(name)
        number = int(match[1]) if match else 0
        line = lines[number - 1] if 1 <= number <= len(lines) else ""
        if line not in wnid_of:
            said = f"line {number} of {_GROUND_TRUTH} is {line!r}, no number of a class"
            why = said if line else f"{_GROUND_TRUTH} has {plural(len(lines), 'line')}"
            raise InputError(f"{source / 'val' / name}: {why}; take the image out, or unpack the development kit again")
        found.append(Entry("", f"val/{name}", size, wnid_of[line]))
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
