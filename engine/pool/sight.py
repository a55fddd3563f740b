"""What the networks see of an item: its decoded pixels, or its embedding, for which no image is decoded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config.input_options import MEMBER, ImageConfig
from engine.config.options import CampaignConfig
from engine.errors import InputError
from engine.pool.embedding_files import EmbeddingFiles, index_embeddings
from engine.pool.identity import content_hash
from engine.pool.images import DecodeError, decode, decode_sizes
from engine.pool.items import read_shard
from engine.pool.runs import read_run
from engine.pool.samples import Item
from engine.pool.shard import ChangedShardError, Place, Shard, read_images
from engine.pool.vectors import VectorError, check_vector, parse_npy

BEFORE_BYTES = (256 << 10, 16 << 20)
"""How far before an image its sample is looked for, at most; then from the first byte of the shard on."""
WHOLE_BYTES = 256 << 10
"""A shard with an image for so many of its bytes is read whole, front to back."""
BLOCK = 512
EMBEDDINGS = "embeddings"
"""The name of what decides the embeddings among the inputs of a training."""
MOST_SHARDS, MOST_WITHOUT = 8, 256
"""Shards, and samples of each, that are looked at to find the length of the embeddings."""


class Vectors(NamedTuple):
    """Where the embeddings of a pool are: in the files of each sample with the suffix `member`, or in the Parquet files
    `files`. All are of `length`."""

    length: int
    member: str = ""
    files: EmbeddingFiles | None = None

    def of(self, shard: Shard) -> Callable[[Item], NDArray[np.float32]]:
        """The function that gives each item of a shard its embedding (length,) float32, or raises VectorError."""
        if self.files is None:
            return lambda item: member_of(item, self.member, self.length)
        vectors = self.files.vectors_of(shard.shard)
        return lambda item: vectors.of(item.key)


class Sight(NamedTuple):
    """How items become what the networks see: pixels by `image`, or `vectors`.

    `task_size` is the side of the square of pixels that the task learner gets, where it is another one than image.size;
    else 0.
    """

    image: ImageConfig
    vectors: Vectors | None = None
    task_size: int = 0

    @property
    def of_task(self) -> "Sight":
        """How items become what the task learner gets."""
        return Sight(self.image.model_copy(update={"size": self.task_size})) if self.task_size else self

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of what the networks see, and that of the task learner's pixels where these are others."""
        return [self.shape, *([self.of_task.shape] if self.task_size else [])]

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of pixels, or (D,) of an embedding."""
        if self.vectors:
            return (self.vectors.length,)
        return self.image.size, self.image.size, self.image.channels

    @property
    def dtype(self) -> Any:
        """uint8 of pixels, float32 of an embedding."""
        return np.dtype(np.float32 if self.vectors else np.uint8)

    @property
    def companion(self) -> str:
        """The suffix of the files that items must come with; see `engine.pool.items.read_items`."""
        return self.vectors.member if self.vectors else ""

    def of(self, shard: Shard) -> Callable[[Item], NDArray[Any]]:
        """The function that makes an item of a shard what the networks see, `shape` and `dtype`. It raises DecodeError
        or VectorError for an item of which that is impossible."""
        return self.vectors.of(shard) if self.vectors else lambda item: decode(item.data, self.image)

    def all_of(self, shard: Shard) -> Callable[[Item], list[NDArray[Any]]]:
        """As `of`, but the function makes an array for each of `shapes`."""
        if not self.task_size:
            see = self.of(shard)
            return lambda item: [see(item)]
        return lambda item: decode_sizes(item.data, self.image, [self.image.size, self.task_size])

    def contents(self, shard: Shard, items: Iterable[Item]) -> Iterator[Item]:
        """Items of a shard that hold what `decoded` needs as their data; without those that have no good embedding."""
        if not self.vectors:
            yield from items
            return
        see = self.vectors.of(shard)
        for item in items:
            try:
                yield item._replace(data=b"" if item.fault else see(item).tobytes(), companions=())
            except VectorError:
                continue

    def decoded(self, content: bytes) -> NDArray[Any] | None:
        """What the networks see of a content, `shape` and `dtype`; None for an image that does not decode."""
        if self.vectors:
            return np.frombuffer(content, np.float32) if content else None
        try:
            return decode(content, self.image)
        except DecodeError:
            return None

    def contents_at(self, shard: Shard, places: list[Place]) -> Iterator[bytes]:
        """The content of each image at these places of a shard, for `decoded`; empty where it has no good embedding.

        Raises ChangedShardError if other bytes are at a place, and ShardError if the shard cannot be read.
        """
        if not self.vectors:
            yield from read_images(shard, places)
            return
        if self.vectors.files is not None:
            items: dict[str, Item] = {place.key: Item(*place[:3], b"", "") for place in places}
        else:
            items = samples_at(shard, self.image, places, self.companion)
        found = {item.key: item.data for item in self.contents(shard, items.values())}
        yield from (found.get(place.key, b"") for place in places)


def sight_of(config: CampaignConfig, shards: Sequence[Shard], length: int = 0) -> Sight:
    """What the networks of a configuration see of the items of these shards.

    `length` is that of the embeddings where it is known; else files say it, or the first sample that has one.

    Raises InputError if the embeddings cannot be found, or are not of this length.
    """
    image, source = image_of(config), config.pool.embeddings
    if not config.sees_embeddings or config.encoder.model:
        return Sight(image, task_size=_task_size(config))
    if member := config.embedding_member:
        return Sight(image, Vectors(length or _first_length(shards, image, member), member))
    files = index_embeddings(source)
    if length and files.length != length:
        why = f"embeddings of {files.length} numbers, the networks were trained on {length}"
        raise InputError(f"pool.embeddings={source}: {why}; restore the files, or train again")
    return Sight(image, Vectors(files.length, files=files))


def notes_on(sight: Sight, shards: Sequence[Shard]) -> list[str]:
    """What is worth a line about the embeddings' files: rows of other shards, and row groups that cost time."""
    files = sight.vectors.files if sight.vectors else None
    if files is None:
        return []
    foreign = files.num_foreign({shard.shard for shard in shards})
    of = f"of {files.num_rows:,} rows in pool.embeddings"
    counted = f"{foreign:,} {of} are of shards that are not in the pool; they are not used"
    return [*([counted] if foreign else []), *([files.advice] if files.advice else [])]


def embedding_inputs(config: CampaignConfig) -> dict[str, Any]:
    """What decides the embeddings of a configuration, as JSON values for a fingerprint; empty where there are none."""
    if not config.sees_embeddings:
        return {}
    if config.encoder.model:
        return {"encoder": config.encoder.model_dump()}
    source = config.pool.embeddings
    return {"embeddings": source if source.startswith(MEMBER) else index_embeddings(source).fingerprint}


def image_of(config: CampaignConfig) -> ImageConfig:
    """How images are decoded for the networks: an encoder has a size of its own."""
    is_encoded = config.sees_embeddings and config.encoder.model
    return config.image.model_copy(update={"size": config.encoder.size}) if is_encoded else config.image


def seen_as(config: CampaignConfig, length: int) -> tuple[list[tuple[int, ...]], Any]:
    """Shapes and dtype of what is read of an item: see `Sight`. `length` is that of an embedding, 0 without."""
    vectors = Vectors(length) if length and not config.encoder.model else None
    sight = Sight(image_of(config), vectors, _task_size(config))
    return sight.shapes, sight.dtype


def _task_size(config: CampaignConfig) -> int:
    size = config.task.size if config.task.model else 0
    return size if size != config.image.size else 0


def _first_length(shards: Sequence[Shard], image: ImageConfig, member: str) -> int:
    """The length of the first good embedding of the pool. Raises InputError if the first samples have none."""
    fault = ""
    for shard in shards[:MOST_SHARDS]:
        for item in islice(read_shard(shard, image, member), MOST_WITHOUT):
            try:
                return len(member_of(item, member))
            except VectorError as error:
                fault = fault or f"; {shard.url}: item {item.key}: {error}"
    raise InputError(f"pool.embeddings={MEMBER}{member}: none of the first samples has a usable one{fault}")


def member_of(item: Item, member: str, length: int = 0) -> NDArray[np.float32]:
    """The embedding in the one file of a sample with this suffix. Raises VectorError, also if it is not of `length`."""
    if len(item.companions) != 1:
        kind = "TwoVectors" if item.companions else "NoVector"
        raise VectorError(kind, f"{len(item.companions)} files .{member} in the sample, expected 1")
    vector = parse_npy(item.companions[0])
    check_vector(vector, length or len(vector))
    return vector


def samples_at(shard: Shard, image: ImageConfig, places: list[Place], companion: str) -> dict[str, Item]:
    """The samples of the images at these places, by key. Raises ChangedShardError if an image is another one."""
    wanted, found = {place.key for place in places}, dict[str, Item]()
    if WHOLE_BYTES * len(places) >= shard.size_bytes:
        found = {item.key: item for item in read_shard(shard, image, companion) if item.key in wanted}
    for place in places:
        for before in (*BEFORE_BYTES, place.offset):
            if place.key not in found:
                begin = max(0, place.offset - before) // BLOCK * BLOCK
                run = read_run(shard, image, begin, max(BLOCK, place.offset // BLOCK * BLOCK), companion)
                found |= {item.key: item for item in run if item.key == place.key}
        item = found.get(place.key)
        if item is None or place.content_hash not in (None, content_hash(item.data)):
            why = "has other bytes than those that are known; run again: the shard is read again then"
            raise ChangedShardError(f"{shard.url}: item {place.key} {why}", shard.url)
    return found
