"""A sample of a shard while its files are read, the keys seen so far, and what is in no sample."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from engine.pool.formats import FORMATS
from engine.pool.tar import Archive

_MOST_NAMED = 10
"""Most suffixes of a sample that an error names."""
_MOST_IMAGES = 65_536
MOST_COMPANION_BYTES = 1 << 20
KEYS_AT_ONCE = 8192
IMAGE_SUFFIXES = frozenset(
    {*(suffix for form in FORMATS for suffix in form.suffixes)}
    | {"avif", "heic", "heif", "jfif", "jp2", "jpe", "jxl", "ppm", "pgm", "tga", "dng"}
)
"""Suffixes of files that look like images, whether they can be read or not."""
OUTSIDE_SAMPLES = frozenset({"NoSuffix", "NotAnImageFile"})
"""Classes of error of items that are in no sample."""


class Item(NamedTuple):
    """One sample of a shard. `offset` and `size_bytes` locate its image in the archive, `data` is that range.

    A faulty sample has no data; `error` is its class of error and `fault` describes it, both empty otherwise.
    "NotOneImage": `offset` is that of the first member, `size_bytes` is 0; where the sample has no image, further files
    that look like one follow as items of their own. "TooManyBytes": the image is larger than image.max_bytes.
    "NoSuffix", "NotAnImageFile": a file outside every sample that is an image whose name has no suffix, begins with a
    dot or is that of metadata, or a link or another odd member with an image's name.
    `companions` are the contents of the sample's files with the suffix that was asked for, usually one; that of a file
    of more than `MOST_COMPANION_BYTES` is empty.
    """

    key: str
    offset: int
    size_bytes: int
    data: bytes
    fault: str
    error: str = ""
    companions: tuple[bytes, ...] = ()


class Unused:
    """What an archive holds beside its items: files that belong to no sample, their bytes, and the name of the first.

    A sample's other files (captions, masks) and metadata (`__name__`) are in use.
    """

    def __init__(self) -> None:
        self.files = self.bytes = 0
        self.example = ""

    def add(self, name: str, size_bytes: int) -> None:
        self.files, self.bytes, self.example = self.files + 1, self.bytes + size_bytes, self.example or name


def is_image_name(name: str) -> bool:
    """Whether a file with this name, or this suffix, looks like an image."""
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


class Keys:
    """Finds a key that appears again, in 8 bytes a key: 64-bit hashes, of which two among a million are equal once in
    40 million shards. Such a shard is refused; no item is lost or doubled."""

    def __init__(self, archive: Archive) -> None:
        self._archive, self._new = archive, list[tuple[str, int]]()
        self._seen = np.empty(0, np.int64)

    def add(self, key: str) -> None:
        self._new.append((key, self._archive.position))
        if len(self._new) >= KEYS_AT_ONCE:
            self.check()

    def check(self) -> None:
        """Raises ShardError if a key was added twice."""
        hashes = np.fromiter((hash(key) for key, _ in self._new), np.int64, len(self._new))
        is_again = np.searchsorted(self._seen, hashes, "right") > np.searchsorted(self._seen, hashes, "left")
        is_again[np.setdiff1d(np.arange(len(hashes)), np.unique(hashes, return_index=True)[1])] = True
        if is_again.any():
            key, position = self._new[int(np.argmax(is_again))]
            raise self._archive.error(position, f"key {key!r} appears again; a sample's files must be adjacent")
        self._seen, self._new = np.concatenate([self._seen, hashes]), []
        self._seen.sort(kind="stable")


class Sample:
    """A sample while its members are read."""

    __slots__ = (
        "companion", "companions", "data", "key", "num_images", "num_members", "offset", "others", "size_bytes",
        "start", "suffixes",
    )  # fmt: skip

    def __init__(self, key: str, start: int, companion: str = "") -> None:
        self.key, self.start, self.companion = key, start, companion
        self.companions: list[bytes] = []
        self.num_members = self.offset = self.size_bytes = 0
        self.suffixes: list[str] = []
        self.num_images = 0
        self.others: list[tuple[str, int]] = []
        self.data: bytes | None = None

    def add(self, archive: Archive, suffix: str, size_bytes: int, max_bytes: int | None) -> None:
        """Read companions and the first image of up to `max_bytes`; skip all else. `max_bytes` is None for other
        files."""
        self.num_members += 1
        if len(self.suffixes) < _MOST_NAMED:
            self.suffixes.append(suffix)
        if max_bytes is not None:
            self.num_images += 1
            self.data = None
            if self.num_images == 1:
                self.offset, self.size_bytes = archive.position, size_bytes
                if size_bytes <= max_bytes:
                    self.data = archive.read(size_bytes)
                    return
        elif suffix == self.companion:
            self.companions.append(archive.read(size_bytes) if size_bytes <= MOST_COMPANION_BYTES else b"")
            if self.companions[-1]:
                return
        elif not self.num_images and is_image_name(suffix):
            self.others.append((suffix, archive.position))
        if len(self.others) > _MOST_IMAGES:
            raise archive.error(self.start, f"more than {_MOST_IMAGES} images in the sample {self.key!r}")
        archive.skip(size_bytes)

    def to_items(self, max_bytes: int) -> Iterator[Item]:
        """The sample; where it has no image, every file of it that looks like one, with the fault."""
        if self.data is not None:
            yield Item(self.key, self.offset, self.size_bytes, self.data, "", companions=tuple(self.companions))
            return
        if self.num_images == 1:
            fault = f"an image of {self.size_bytes} bytes, more than image.max_bytes={max_bytes}"
            yield Item(self.key, self.offset, self.size_bytes, b"", fault, "TooManyBytes")
            return
        rest = ", ..." if self.num_members > _MOST_NAMED else ""
        fault = f"{self.num_images} images in the sample, expected 1 ({', '.join(self.suffixes)}{rest})"
        if self.num_images:
            fault += "; name the suffix of the image alone in image.suffixes"
        elif self.others:
            fault += "; a suffix is all that follows the first dot of a name: rename the files, or set image.suffixes"
        yield Item(self.key, self.start, 0, b"", fault, "NotOneImage")
        for suffix, position in self.others[1:] if not self.num_images else ():
            yield Item(f"{self.key}.{suffix}", position, 0, b"", f"no image of its own: see {self.key}", "NotOneImage")
