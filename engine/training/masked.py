"""Labelled images with their masks: read together, and a sample of their pixels."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.campaign.labels import Identity
from engine.campaign.packed_positions import Position
from engine.errors import InputError
from engine.pool.mask_files import MaskError
from engine.pool.mask_source import MaskSource, resized
from engine.pool.samples import Item
from engine.pool.shard import Place, Shard
from engine.pool.sight import samples_at
from engine.training.labelled import Cache, by_shard
from engine.training.streams import READ_THREADS, Pool
from vaal.task.kinds import VOID
from vaal.task.segmentation import logits_at

FEWEST_PIXELS = 16
"""Of an image in a sample of pixels."""


class Masked(NamedTuple):
    """An image and its mask: the number of its position; its pixels, as the networks see them; and the mask (H, W) at
    its own size."""

    number: int
    pixels: NDArray[np.uint8]
    mask_HW: NDArray[np.uint8]


class MaskReader(NamedTuple):
    """Reads the labelled images of a pool with their masks. `faults` gets, by item, why a mask cannot be used."""

    pool: Pool
    source: MaskSource
    labels: Mapping[Identity, str]
    faults: dict[Identity, str]

    def read(self, positions: Iterable[Position]) -> Iterator[Masked]:
        """Those at these positions, in this order, without those of which the image or the mask cannot be used.

        Few of them are in the memory at a time. Raises InputError where no mask can be used.
        """

        def items_of(part: tuple[str, list[tuple[int, Place]]]) -> list[tuple[int, str, Item]]:
            name, places = part
            items = self._items(self.pool.shard(name), [place for _, place in places])
            return [(number, name, item) for (number, _), item in zip(places, items, strict=True)]

        parts, found, num_read = by_shard(positions), False, 0
        with ThreadPoolExecutor(READ_THREADS) as threads:
            # In groups, to hold only a few parts' files and a few masks at a time.
            while group := list(islice(parts, READ_THREADS)):
                for items in threads.map(items_of, group):
                    num_read += len(items)
                    for first in range(0, len(items), READ_THREADS):
                        for one in threads.map(self._look, items[first : first + READ_THREADS]):
                            if one is not None:
                                found = True
                                yield one
        if num_read and self.faults and not found:
            raise InputError(f"none of {num_read} masks can be used: {min(self.faults.values())}")

    def cache(self, file: Path, most_bytes: int = sys.maxsize) -> Cache:
        """A cache of what the networks see and, as a further channel, the mask at that size."""
        height, width, channels = self.pool.sight.shape

        def read(positions: Iterable[Position]) -> Iterator[tuple[int, NDArray[Any]]]:
            for number, pixels, mask_HW in self.read(positions):
                yield number, np.dstack([pixels, resized(mask_HW, height, width)])

        return Cache(file, (height, width, channels + 1), np.dtype(np.uint8), read, most_bytes)

    def _items(self, shard: Shard, places: list[Place]) -> Iterator[Item]:
        if self.source.member:
            items = samples_at(shard, self.pool.sight.image, places, self.source.member)
            yield from (items[place.key] for place in places)
            return
        for place, content in zip(places, self.pool.sight.contents_at(shard, places), strict=True):
            yield Item(*place[:3], content, "")

    def _look(self, found: tuple[int, str, Item]) -> Masked | None:
        number, shard, item = found
        pixels = self.pool.sight.decoded(item.data)
        if pixels is None:
            return None
        label = self.labels[shard, item.key]
        try:
            return Masked(number, pixels, self.source.of(item, label))
        except MaskError as error:
            where = f"{shard}: item {item.key}: the mask in {self.source.place_of(item.key, label)}"
            self.faults[shard, item.key] = f"{where} {error}"
            return None


def places_of(number: int, size: int, count: int) -> NDArray[np.int64]:
    """So many random places of the `size` ones of an image, the same for its number."""
    return np.random.default_rng((number, 9)).integers(0, size, count)


def pixels_of_each(most: int, num_images: int) -> int:
    """How many pixels of each image are in a sample of about `most`."""
    return max(FEWEST_PIXELS, most // max(1, num_images))


def sampled_pixels(
    number_B: NDArray[np.int64], logit_BChw: Tensor, mask_BHW: Tensor, count: int
) -> tuple[NDArray[np.int64], Tensor, Tensor]:
    """Of a sample of `count` pixels of each mask, without void: the image's number (P,), the logits (P, C) and the
    class (P,)."""
    height, width = mask_BHW.shape[1:]
    places = [places_of(int(number), height * width, count) for number in number_B]
    place_BP = torch.from_numpy(np.stack(places)) if places else torch.empty(0, count, dtype=torch.int64)
    answer_P = mask_BHW.flatten(1).gather(1, place_BP).flatten()
    logit_PC = logits_at(logit_BChw, place_BP, height, width).flatten(0, 1)
    is_valid_P = answer_P != VOID
    return number_B.repeat(count)[is_valid_P.numpy()], logit_PC[is_valid_P], answer_P[is_valid_P]
