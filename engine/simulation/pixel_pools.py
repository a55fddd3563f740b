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
from engine.pool.samples import Item
from engine.pool.shard import Shard
from engine.simulation.experiment import expand
from engine.storage.location import Location

Names = list[tuple[str, str]]


class Images(NamedTuple):
    """N images: shard and key, pixels (N, S, S, C) uint8, and the hashes of their files."""

    names: Names
    pixel_NSSC: NDArray[np.uint8]
    hashes: list[str]


def read_images(pattern: str, image: ImageConfig, files: dict[str, str]) -> Images:
    """All images of these shards. `files` gets the hashes of what was read.

    Raises InputError if a shard is missing or damaged, or an image cannot be decoded.
    """
    names, images, hashes = Names(), list[NDArray[np.uint8]](), list[str]()
    for shard in list_shards([expand(pattern)], "")[0]:
        digest = hashlib.sha256()
        for item in read_shard(shard, image):
            images.append(_pixels(shard, item, image))
            names.append((shard.shard, item.key))
            hashes.append(content_hash(item.data))
            digest.update(f"{item.key}\0{hashes[-1]}\n".encode())
        files[shard.url] = digest.hexdigest()
    if not names:
        raise InputError(f"{pattern}: no image in these shards; check image.suffixes")
    return Images(names, np.stack(images), hashes)


def _pixels(shard: Shard, item: Item, image: ImageConfig) -> NDArray[np.uint8]:
    where = f"{shard.url}: item {item.key}"
    if item.fault:
        raise InputError(f"{where} has {item.fault}; an experiment needs whole pools: repair the shard")
    try:
        return decode(item.data, image)
    except DecodeError as error:
        raise InputError(f"{where} cannot be decoded: {error}; take it out of the shard") from error


def write_pool(pattern: str, names: Names, folder: Location, image: ImageConfig) -> None:
    """Write shards with these items of the source's, sorted by shard, where they are not yet.

    The images are those of the source, byte for byte, in its order; a shard's bytes depend on nothing else.
    """
    wanted = {shard: {key for _, key in group} for shard, group in itertools.groupby(names, key=lambda name: name[0])}
    for shard in list_shards([expand(pattern)], "")[0]:
        if shard.shard not in wanted:
            continue
        place = folder / shard.shard
        if not place.exists():
            place.write_bytes(_archive(shard, wanted[shard.shard], image))


def _archive(shard: Shard, keys: set[str], image: ImageConfig) -> bytes:
    content = io.BytesIO()
    # Names that USTAR has no room for get a header of their own.
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in _drawn(shard, keys, image):
            # Without a time or an owner the bytes are always the same.
            member = tarfile.TarInfo(f"{item.key}.{_suffix(item.data, image)}")
            member.size = len(item.data)
            archive.addfile(member, io.BytesIO(item.data))
    return content.getvalue()


def _drawn(shard: Shard, keys: set[str], image: ImageConfig) -> Iterator[Item]:
    left = set(keys)
    for item in read_shard(shard, image):
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
