"""Images of an experiment: read from shards, and drawn into the shards of a seed's pool.

Shape suffixes: N items, S image side in pixels, C channels.
"""

import hashlib
import io
import itertools
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config.input_options import ImageConfig
from engine.errors import InputError
from engine.pool.formats import format_of
from engine.pool.identity import content_hash
from engine.pool.images import DecodeError, decode
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.pool.mask_files import MaskError, class_numbers, read_ids
from engine.pool.mask_source import MaskSource
from engine.pool.samples import Item
from engine.pool.shard import Shard
from engine.simulation.source_files import expand, places_of
from engine.storage.location import Location

Names = list[tuple[str, str]]


class Images(NamedTuple):
    """N images: shard and key, pixels (N, S, S, C) uint8, the hashes of their files, and their masks, PNG files or
    empty."""

    names: Names
    pixel_NSSC: NDArray[np.uint8]
    hashes: list[str]
    masks: list[bytes]


def read_images(
    pattern: str, image: ImageConfig, files: dict[str, str], source: MaskSource | None = None, key: str = "pool.shards"
) -> Images:
    """All images of these shards, and their masks if `source` says how to read them. `files` gets the hashes of what
    was read; `key` is that of the experiment which names the shards.

    Raises InputError if a shard is missing or damaged, or an image or its mask cannot be used.
    """
    names, hashes, masks = Names(), list[str](), list[bytes]()
    # It grows in place: a list of images, and then their stack, would take twice the memory.
    pixels = bytearray()
    places_of(pattern, key)
    for shard in list_shards([expand(pattern, key)], "", key)[0]:
        digest = hashlib.sha256()
        for item in read_shard(shard, image, companion=source.member if source else ""):
            pixels += _pixels(shard, item, image).tobytes()
            names.append((shard.shard, item.key))
            hashes.append(content_hash(item.data))
            masks.append(_mask(shard, item, source) if source else b"")
            digest.update(f"{item.key}\0{hashes[-1]}\0{content_hash(masks[-1])}\n".encode())
        files[shard.url] = digest.hexdigest()
    if not names:
        raise InputError(f"{key}={pattern}: no image in these shards; check image.suffixes")
    pixel_NSSC = np.frombuffer(pixels, np.uint8).reshape(len(names), image.size, image.size, image.channels)
    return Images(names, pixel_NSSC, hashes, masks)


def _pixels(shard: Shard, item: Item, image: ImageConfig) -> NDArray[np.uint8]:
    where = f"{shard.url}: item {item.key}"
    if item.fault:
        raise InputError(f"{where} has {item.fault}; an experiment needs whole pools: repair the shard")
    try:
        return decode(item.data, image)
    except DecodeError as error:
        raise InputError(f"{where} cannot be decoded: {error}; take it out of the shard") from error


def _mask(shard: Shard, item: Item, source: MaskSource) -> bytes:
    """The file of an item's mask, which fits its image."""
    try:
        return source.upright_member(item)
    except MaskError as error:
        raise InputError(f"{shard.url}: item {item.key}: the mask {error}") from error


def numbers_of(mask: bytes, source: MaskSource) -> NDArray[np.uint8]:
    """The class numbers (H, W) of a mask that `read_images` read, 255 for void."""
    return class_numbers(read_ids(mask, source.image.max_pixels), len(source.classes), source.void)


def write_pool(pattern: str, names: Names, folder: Location, image: ImageConfig, companion: str = "") -> None:
    """Write shards with these items of the source's, sorted by shard, where they are not yet; with the file of each
    that has the suffix `companion`.

    The images are those of the source, byte for byte, in its order; a shard's bytes depend on nothing else.
    """
    wanted = {shard: {key for _, key in group} for shard, group in itertools.groupby(names, key=lambda name: name[0])}
    for shard in list_shards([expand(pattern, "pool.shards")], "", "pool.shards")[0]:
        if shard.shard not in wanted:
            continue
        place = folder / shard.shard
        if not place.exists():
            place.write_bytes(_archive(shard, wanted[shard.shard], image, companion))


def _archive(shard: Shard, keys: set[str], image: ImageConfig, companion: str) -> bytes:
    content = io.BytesIO()
    # Names that USTAR has no room for get a header of their own.
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in _drawn(shard, keys, image, companion):
            masks = [(companion, content) for content in item.companions]
            for suffix, data in [(_suffix(item.data, image), item.data), *masks]:
                # Without a time or an owner the bytes are always the same.
                member = tarfile.TarInfo(f"{item.key}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def _drawn(shard: Shard, keys: set[str], image: ImageConfig, companion: str) -> Iterator[Item]:
    left = set(keys)
    for item in read_shard(shard, image, companion=companion):
        if item.key in left:
            left.remove(item.key)
            yield item
    if left:
        raise InputError(f"{shard.url}: item {min(left)} is gone since the experiment was read; run again")


def _suffix(data: bytes, image: ImageConfig) -> str:
    """A suffix under which the image is found again; its content decides its format, not the name."""
    form = format_of(data)
    own = [suffix for suffix in (form.suffixes if form else ()) if suffix in image.suffixes]
    return (own or image.suffixes)[0]
