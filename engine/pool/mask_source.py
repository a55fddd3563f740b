"""The mask of a labelled image: from its label, from a file of its sample, or from a folder."""

import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pyarrow import fs

from engine.config.class_names import class_name
from engine.config.input_options import MEMBER, ImageConfig
from engine.config.options import CampaignConfig
from engine.config.texts import some
from engine.errors import InputError, UnreadableError
from engine.pool.images import DecodeError
from engine.pool.mask_files import MaskError, class_numbers, one_class, read_ids, require_size
from engine.pool.mask_shapes import pixels_of
from engine.pool.orientation import turned
from engine.pool.samples import MOST_COMPANION_BYTES, Item
from engine.pool.stored import Stored, stored_as
from engine.storage.location import Location
from vaal.task.kinds import VOID

KEPT = "votes/masks"
"""Where masks that come back are kept below a campaign."""
MASKS = "masks"
"""The name of what decides the masks among the inputs of a training."""


class MaskSource(NamedTuple):
    """Where masks are: files with the suffix `member` of each sample, or of `folder`; masks that came back from
    annotators are below `home`, the campaign. `classes` are in the order of their ids, without those of `void`."""

    home: Location
    member: str
    folder: Location | None
    classes: tuple[str, ...]
    void: frozenset[int]
    image: ImageConfig

    def of(self, item: Item, label: str) -> NDArray[np.uint8]:
        """The class numbers (H, W) of an item's pixels, as its image is shown, upright; 255 where nothing is known.

        Args:
            item: with the image, and with its companions where masks are members.
            label: shapes, as `vaal ingest` keeps them; or the name of a PNG in `folder`; or anything else, where the
                mask is the item's own file, KEY.SUFFIX or KEY.png.

        Raises MaskError where there is no mask, or none of this image.
        """
        stored, shapes = self._stored(item), shapes_in(label)
        if shapes is not None:
            return self._drawn(shapes, stored.shown, partial(self._ids_of, stored=stored))
        content = self._member_of(item) if self.member else self._file(_name_of(item.key, label))
        return self._numbers_of(_as_shown(read_ids(content, self.image.max_pixels), stored))

    def upright_member(self, item: Item) -> bytes:
        """The file of an item's mask, which is a member of its sample and upright, as its image is shown.

        Raises MaskError as `of`, and where the EXIF of the image turns the mask.
        """
        content, stored = self._member_of(item), self._stored(item)
        ids = read_ids(content, self.image.max_pixels)
        shown, numbers = _as_shown(ids, stored), self._numbers_of(ids)
        if shown is not ids and not np.array_equal(self._numbers_of(shown), numbers):
            raise MaskError("is of an image that its EXIF turns; write both upright")
        return content

    def file_of(self, item: Item, label: str) -> bytes:
        """The mask of an item as a PNG of class numbers, as the image is stored. Raises MaskError as `of`."""
        mask_HW, orientation = self.of(item, label), stored_as(item.data, self.image).orientation
        content = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(turned(mask_HW, orientation, back=True))).save(content, "PNG")
        return content.getvalue()

    def check(self, shape: dict[str, Any], content: bytes, height: int, width: int) -> None:
        """Raises MaskError if `of` could not use a shape that an annotator drew on an upright image of this size.
        `content` is that of its mask, where this is a file. A class that is none is not looked for: the question says
        which may come."""
        name = class_name(str(shape.get("label") or ""))
        if name and name not in self.classes:
            return
        self._drawn([shape], (height, width), lambda _: self._sent(content, height, width))

    def place_of(self, key: str, label: str) -> str:
        """Where the mask of an item is looked for, in words."""
        shapes = shapes_in(label)
        if shapes is not None:
            files = [mask for shape in shapes if isinstance(mask := shape.get("mask"), str)]
            return some(files) or "the shapes of its label"
        if self.member:
            return f"{key}.{self.member}"
        return f"{self.folder}/{_name_of(key, label)}" if self.folder else "no file"

    def _drawn(
        self, shapes: list[dict[str, Any]], shown: tuple[int, int], ids_of: Callable[[str], NDArray[Any]]
    ) -> NDArray[np.uint8]:
        """The shapes on an image of these sides, each over those before it. `ids_of` reads a mask that one names."""
        found = np.full(shown, VOID, np.uint8)
        for shape in shapes:
            name, mask = class_name(str(shape.get("label") or "")), shape.get("mask")
            if name and name not in self.classes:
                raise MaskError(f"has a shape of class {name!r}, and the classes are {', '.join(self.classes)}")
            if not name and not isinstance(mask, str):
                raise MaskError("has a shape without a class; give it one")
            if not isinstance(mask, str):
                found[pixels_of(shape, *shown)] = self.classes.index(name)
                continue
            ids = ids_of(mask)
            numbers = np.where(one_class(ids), self.classes.index(name), VOID) if name else self._numbers_of(ids)
            found = np.where(numbers != VOID, numbers, found).astype(np.uint8)
        return found

    def _ids_of(self, mask: str, stored: Stored) -> NDArray[Any]:
        """The ids in a mask that a shape names, as the image is shown."""
        if not mask.startswith(f"{KEPT}/") or ".." in mask.split("/"):
            return _as_shown(read_ids(self._file(mask), self.image.max_pixels), stored)
        return self._sent(_read(self.home / mask), *stored.shown)

    def _sent(self, content: bytes, height: int, width: int) -> NDArray[Any]:
        """The ids in a mask that an annotator sent, who saw the image upright."""
        ids = read_ids(content, self.image.max_pixels)
        require_size(ids.shape, height, width)
        return ids

    def _stored(self, item: Item) -> Stored:
        try:
            return stored_as(item.data, self.image)
        except DecodeError as error:
            raise MaskError(f"has an image that does not decode: {error}") from error

    def _numbers_of(self, ids: NDArray[Any]) -> NDArray[np.uint8]:
        return class_numbers(ids, len(self.classes), self.void)

    def _member_of(self, item: Item) -> bytes:
        if len(item.companions) != 1:
            if item.companions:
                raise MaskError(f"is {len(item.companions)} files .{self.member} of the sample, and should be one")
            why = f"is not there: the sample has no file .{self.member}"
            raise MaskError(f"{why}; add it to the shard, retract the label, or correct labels.masks")
        if not item.companions[0]:
            why = f"is empty or has more than {MOST_COMPANION_BYTES >> 20} MiB"
            raise MaskError(f"{why}; put the masks into a folder, and name it in labels.masks")
        return item.companions[0]

    def _file(self, name: str) -> bytes:
        """A file of the folder."""
        if name.startswith("/") or ".." in name.split("/"):
            raise MaskError(f"is {name!r}, which leads out of its folder; name a file in it")
        if self.folder is None:
            raise MaskError(f"is not there: {name!r}; --set labels.masks=FOLDER, or member:SUFFIX for files of samples")
        return _read(self.folder / name)


def mask_source(config: CampaignConfig, home: Location) -> MaskSource | None:
    """Where the masks of a configuration are; None where its task learner learns none."""
    if config.task_kind != "segmentation":
        return None
    given = config.labels.masks
    is_member = given.startswith(MEMBER)
    member = given.removeprefix(MEMBER).lower().removeprefix(".") if is_member else ""
    folder = Location.of(given) if given and not is_member else None
    return MaskSource(home, member, folder, tuple(config.mask_classes), frozenset(config.labels.void), config.image)


def mask_inputs(source: MaskSource | None) -> dict[str, Any]:
    """What decides the masks beside the labels and the shards, as JSON values for a fingerprint: classes and ids, and
    the names, sizes and times of the files of a folder; empty where none are learned."""
    if source is None:
        return {}
    values = {"member": source.member, "classes": source.classes, "void": sorted(source.void)}
    if source.folder is None:
        return {MASKS: values}
    selector = fs.FileSelector(source.folder.path, allow_not_found=True, recursive=True)
    listed = sorted((f.path, f.size, f.mtime_ns) for f in source.folder.filesystem.get_file_info(selector))
    return {MASKS: {**values, "files": listed}}


def shapes_in(label: str) -> list[dict[str, Any]] | None:
    """The shapes in a label, as `vaal ingest` keeps them; None for another label."""
    try:
        found = json.loads(label) if label.startswith("[") else None
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(shape, dict) for shape in found) else None


def _name_of(key: str, label: str) -> str:
    return label if label.lower().endswith(".png") else f"{key}.png"


def resized(mask_HW: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A mask (height, width), each pixel that of the mask at its middle."""
    sides = zip((height, width), mask_HW.shape, strict=True)
    row, column = (((np.arange(side) + 0.5) * length / side).astype(np.int64) for side, length in sides)
    found: NDArray[np.uint8] = mask_HW[row[:, None], column]
    return found


def _as_shown(ids: NDArray[Any], stored: Stored) -> NDArray[Any]:
    """A mask of a file, turned like its image: it was made of the pixels as they are stored."""
    if ids.shape == stored[:2]:
        return turned(ids, stored.orientation)
    require_size(ids.shape, *stored.shown)
    return ids


def _read(file: Location) -> bytes:
    try:
        return file.read_bytes()
    except UnreadableError:
        raise
    except InputError as error:
        raise MaskError(f"cannot be read: {error}") from error
