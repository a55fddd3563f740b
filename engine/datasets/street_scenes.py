"""Data sets of masks: Cityscapes, BDD100K and CamVid. Every mask becomes ids of classes from 0, and 255 for void."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from engine.campaign.first_labels import OF_MASK
from engine.config.input_options import ImageConfig
from engine.config.texts import plural, some
from engine.datasets.opened import TEST, TRAIN, VAL, Opened, below, content_of, folder_with, image_of, walked
from engine.datasets.train_ids import (
    CAMVID_CLASSES,
    SEGNET_IDS,
    STREET_CLASSES,
    STREET_IDS,
    TRAIN_IDS,
    ids_of_codes,
    train_ids_of,
)
from engine.errors import InputError
from engine.packing.entries import Entry, Sample, key_of
from engine.pool.images import DecodeError
from engine.pool.mask_files import MaskError
from engine.pool.samples import is_image_name
from engine.pool.stored import stored_as
from engine.storage.location import Location

MASK_SUFFIX = "seg.png"
"""Of the mask among the files of a sample: `labels.masks=member:seg.png`."""
FASTAI_COUNTS = {TRAIN: 600, TEST: 101}
"""Images of fast.ai's CamVid, which are those of the other layout in another split."""


class Pairs(NamedTuple):
    """A folder of images and one of masks. The names of an image and its mask are alike but for these ends; in folders
    below they are in the same one."""

    images: str
    image_end: str
    masks: str
    mask_end: str


class Scenes(NamedTuple):
    """The entries of each part, the path of the mask by that of the image, and what was left out, a line each."""

    parts: dict[str, list[Entry]]
    masks: dict[str, str]
    left_out: list[str]


def cityscapes(source: Location, _seed: int) -> Opened:
    """Cityscapes, of which val is the test set. Keys are CITY/FRAME. Masks of label ids become the 19 train ids.

    Raises InputError for another layout, and an image without a mask or the other way round.
    """
    layout = "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png of train and val"
    folder_with(source, "leftImg8bit/train", layout)
    pairs = {
        part: Pairs(f"leftImg8bit/{split}", "_leftImg8bit.png", f"gtFine/{split}", "_gtFine_labelIds.png")
        for part, split in ((TRAIN, "train"), (TEST, "val"))
    }
    return _opened(source, pairs, layout, STREET_CLASSES, STREET_IDS)


def bdd100k(source: Location, _seed: int) -> Opened:
    """The 10K images of BDD100K, of which val is the test set. Its masks are train ids already, and stay as they are.

    Raises as `cityscapes`.
    """
    layout = "images/10k/SPLIT/*.jpg and labels/sem_seg/masks/SPLIT/*.png of train and val"
    at = below(source, folder_with(source, "images/10k/train", layout, ("", "bdd100k")))
    pairs = {
        part: Pairs(f"{at}images/10k/{split}", ".jpg", f"{at}labels/sem_seg/masks/{split}", ".png")
        for part, split in ((TRAIN, "train"), (TEST, "val"))
    }
    return _opened(source, pairs, layout, STREET_CLASSES, TRAIN_IDS)


def camvid(source: Location, _seed: int) -> Opened:
    """CamVid as SegNet's authors have it, or else as fast.ai has it, whose 32 classes become 11 and whose valid.txt is
    the test set.

    Raises as `cityscapes`, and for a valid.txt that does not name some of the images, or names others.
    """
    layout = "train/*.png and trainannot/*.png, val, test; or images/*.png, labels/*_P.png, codes.txt and valid.txt"
    if source.exists() and (source / "codes.txt").exists():
        return _fastai(source, layout)
    at = below(source, folder_with(source, "trainannot", layout, ("", "CamVid")))
    pairs = {part: Pairs(f"{at}{part}", ".png", f"{at}{part}annot", ".png") for part in (TRAIN, VAL, TEST)}
    return _opened(source, pairs, layout, CAMVID_CLASSES, SEGNET_IDS)


def _fastai(source: Location, layout: str) -> Opened:
    codes = content_of(source / "codes.txt").decode(errors="replace").split()
    opened = _opened(
        source,
        {TRAIN: Pairs("images", ".png", "labels", "_P.png")},
        layout,
        CAMVID_CLASSES,
        ids_of_codes(source, codes),
    )
    entries = opened.parts[TRAIN]
    names = [entry.source.removeprefix("images/") for entry in entries]
    held_out = _held_out(source / "valid.txt", names)
    is_test = [name in held_out for name in names]
    parts = {
        part: [entry for entry, its in zip(entries, is_test, strict=True) if its == wanted]
        for part, wanted in ((TRAIN, False), (TEST, True))
    }
    return opened._replace(parts=parts, counts=FASTAI_COUNTS)


def _held_out(file: Location, names: list[str]) -> set[str]:
    """The names of images that a file lists. Raises InputError unless they are some of `names`."""
    lines = content_of(file).decode(errors="replace").splitlines()
    held_out = {line.strip() for line in lines if line.strip()}
    fix = f"give names of files in images, like {names[0]}, or unpack the data set again"
    if strangers := sorted(held_out - {*names}):
        raise InputError(f"{file}: {plural(len(strangers), 'name')} without an image: {some(strangers)}; {fix}")
    if not held_out or len(held_out) == len(names):
        raise InputError(f"{file}: names {'all' if held_out else 'none'} of {plural(len(names), 'image')}; {fix}")
    return held_out


def _opened(
    source: Location, pairs: dict[str, Pairs], layout: str, classes: tuple[str, ...], ids: Mapping[int, int]
) -> Opened:
    scenes = Scenes({}, {}, [])
    for part, pair in pairs.items():
        _add(scenes, part, source, pair, layout)
    return Opened(
        scenes.parts,
        list(classes),
        partial(_read, source=source, masks=scenes.masks, ids=ids),
        is_remote=not source.is_local,
        left_out=tuple(scenes.left_out),
    )


def _add(scenes: Scenes, part: str, source: Location, pair: Pairs, layout: str) -> None:
    """Add a part: its images, each with its mask."""
    there, masks = _ending(source, pair.images, "", layout), _ending(source, pair.masks, pair.mask_end, layout)
    images = {name.removesuffix(pair.image_end): n for name, n in there.items() if name.endswith(pair.image_end)}
    if not masks and (jpegs := _ending(source, pair.masks, ".jpg", layout)):
        first = f"{source / pair.masks / next(iter(jpegs))}.jpg"
        raise InputError(f"{first}: a mask as JPEG, whose compression changes the ids of pixels; get the PNG files")
    if not images:
        raise InputError(f"{source / pair.images}: no *{pair.image_end} in it; looked for {layout}")
    if others := [name for name in there if is_image_name(name) and not name.endswith(pair.image_end)]:
        why = f"{plural(len(others), 'image')} left out whose name does not end in {pair.image_end}: {some(others)}"
        scenes.left_out.append(f"{source / pair.images}: {why}")
    _require_partners(source, pair[:2], pair[2:], sorted(images.keys() - masks.keys()), "mask")
    _require_partners(source, pair[2:], pair[:2], sorted(masks.keys() - images.keys()), "image")
    scenes.parts[part] = []
    for name, size in images.items():
        image = f"{pair.images}/{name}{pair.image_end}"
        scenes.parts[part].append(Entry(key_of(f"{name}.png"), image, size, OF_MASK))
        scenes.masks[image] = f"{pair.masks}/{name}{pair.mask_end}"


def _require_partners(
    source: Location, place: tuple[str, str], other: tuple[str, str], alone: list[str], what: str
) -> None:
    """Raises InputError if files of a place have no partner in the other one; both are a folder and an end."""
    if alone:
        more = f", and for {len(alone) - 1:,} more" if len(alone) > 1 else ""
        first = source / f"{place[0]}/{alone[0]}{place[1]}"
        raise InputError(
            f"{first}: no {what} {other[0]}/{alone[0]}{other[1]} for it{more}; unpack both again, in this layout"
        )


def _ending(source: Location, folder: str, end: str, layout: str) -> dict[str, int]:
    """The size of each file below a folder whose name has this end, by its path in it without that."""
    if not (source / folder).exists():
        raise InputError(f"{source}: no {folder} in it; looked for {layout}")
    return {
        found.below(name).removesuffix(end): size
        for found in walked(source / folder)
        for name, size in found.files.items()
        if name.endswith(end)
    }


def _read(entry: Entry, source: Location, masks: dict[str, str], ids: Mapping[int, int]) -> Sample:
    sample, place = image_of(source, entry), source / masks[entry.source]
    try:
        sides = stored_as(sample.data, ImageConfig())[:2]
    except DecodeError as error:
        why = f"cannot be decoded: {error}"
        raise InputError(f"{source / entry.source}: {why}; unpack the data set again") from error
    try:
        mask = train_ids_of(content_of(place), sides, ids)
    except MaskError as error:
        raise InputError(f"{place}: {error}") from error
    return sample._replace(companions=((MASK_SUFFIX, mask),))
