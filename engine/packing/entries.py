"""What is packed: entries of a plan, the samples that they become, and the keys of samples."""

import hashlib
import re
from collections import Counter
from typing import Any, NamedTuple

import pyarrow as pa

from engine.config.input_options import ImageConfig
from engine.tables.columns import required

MAX_BYTES: int = ImageConfig.model_fields["max_bytes"].default
"""A larger image would be quarantined by image.max_bytes, so it is not packed."""
MOST_SHARD_BYTES = 256 << 20
UNKNOWN_BYTES = 128 << 10
"""What an image of unknown size counts as."""
TABLE, VIDEO, FOLDER, LIST = "table", "video", "folder", "list"
"""The kinds of sources."""


class Entry(NamedTuple):
    """A part of a source that one shard gets: an image, or the images `begin` to `end` of a table or video.

    `source` is a path below the source's folder; of a list the path or URL. `size_bytes` is -1 where it is not known;
    `end` is -1 for "all that follow". `key` is an image's own, or the folder of the keys of several. `companions` are
    the suffixes of files that belong to the image.
    """

    key: str
    source: str
    size_bytes: int = -1
    label: str | None = None
    begin: int = 0
    end: int = 1
    companions: tuple[str, ...] = ()


PLAN_SCHEMA = pa.schema(
    [
        *required(pa.string(), "shard", "key", "source"),
        *required(pa.int64(), "size_bytes"),
        pa.field("label", pa.string()),
        *required(pa.int64(), "begin", "end"),
        *required(pa.list_(pa.string()), "companions"),
    ]
)
"""The entries of a plan; a row group is a shard."""


class Sample(NamedTuple):
    """An image that was read. One that could not be has no data; `error` is the class of its failure, and `message`
    describes it."""

    key: str
    source: str
    data: bytes
    label: str | None = None
    companions: tuple[tuple[str, bytes], ...] = ()
    error: str = ""
    message: str = ""


ITEMS_SCHEMA = pa.schema(
    [
        *required(pa.string(), "shard", "key", "source"),
        pa.field("label", pa.string()),
        *required(pa.string(), "error", "message"),
    ]
)
"""What became of everything that was to be packed: a row an image. `error` is empty for what is in the shard."""


class Options(NamedTuple):
    """How a source is packed.

    Attributes:
        has_class_folders: the first folder below the source names the class of an image.
        label_column: of a list or table. Empty: "label", if there is one.
        every: seconds between two frames of a video; 0 for other sources.
        shard_images: the most images of a shard.
        timeout: seconds in which an image at a URL must arrive.
    """

    has_class_folders: bool = False
    label_column: str = ""
    every: float = 0.0
    shard_images: int = 10_000
    timeout: float = 30.0

    def deciding(self) -> dict[str, Any]:
        """What must be the same in every run into a pool, by the command's options."""
        return {
            "--classes-from-folders": self.has_class_folders,
            "--label-column": self.label_column,
            "--every": self.every,
        }


class OtherFiles(NamedTuple):
    """The files of a source that are no images of their own, counted by suffix: what belongs to an image, and what is
    left out."""

    companions: Counter[str]
    skipped: Counter[str]


def key_of(path: str) -> str:
    """The key of the image at a path: the path without its last suffix, in a form that a tar reader takes for one key.

    A key ends at the first dot of its last part, and names like __this__ are those of metadata.
    """
    folder, slash, name = path.strip("/").rpartition("/")
    stem = name.rpartition(".")[0] or name
    plain = re.sub(r"[.\x00-\x1f\x7f]", "_", stem)
    if plain.startswith("__") and plain.endswith("__"):
        plain = f"image{plain}"
    return f"{folder}{slash}{plain}"


def marked(key: str, path: str) -> str:
    """A key that no other path has, for one that several paths would get."""
    return f"{key}-{hashlib.blake2b(path.encode(), digest_size=4).hexdigest()}"
