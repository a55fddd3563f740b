"""Three shards of twelve images of 8 x 8 pixels, all different, all files of one size; and what is done to them."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from engine.pool.identity import content_hash
from tests.tars import archive

NUM_SHARDS, NUM_ITEMS, SIDE = 3, 12, 8
Item = tuple[str, str]
"""shard, key."""


class TinyPool:
    """`content[shard][key]` is the hash of the file now under a name, also while a shard is cut."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.num_made, self.clock = folder, 0, 1_700_000_000
        self.files: dict[str, dict[str, bytes]] = {}
        self.hash_of_pixels: dict[bytes, str] = {}
        self.cut_shards: set[str] = set()
        self.unseen: set[Item] = set()
        """Replaced without a trace in the shard's size and time."""
        self._copies: dict[tuple[str, int], dict[str, bytes]] = {}
        folder.mkdir(parents=True)
        for number in range(NUM_SHARDS):
            self.files[f"{number}.tar"] = {f"{item:02d}": self._image() for item in range(NUM_ITEMS)}
            self.write(f"{number}.tar")

    def _image(self) -> bytes:
        pixels_HWC = np.random.default_rng(self.num_made).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        self.num_made += 1
        out = io.BytesIO()
        # Not compressed, so that all files have one size.
        Image.fromarray(pixels_HWC).save(out, "png", compress_level=0)
        self.hash_of_pixels[pixels_HWC.tobytes()] = content_hash(out.getvalue())
        return out.getvalue()

    def write(self, shard: str, *, is_later: bool = True) -> None:
        """Write the shard's file whole; `is_later` gives it a new time."""
        path = self.folder / shard
        before = path.stat().st_mtime_ns // 10**9 if path.exists() else 0
        self.cut_shards.discard(shard)
        path.write_bytes(archive([(f"{key}.png", data) for key, data in self.files[shard].items()]))
        self._date(shard, None if is_later else before)

    def _date(self, shard: str, moment: int | None) -> None:
        """Give the file this time, or a new one. A copy of this state is kept."""
        if moment is None:
            self.clock += 1
            self.unseen = {item for item in self.unseen if item[0] != shard}
        moment = moment or self.clock
        os.utime(self.folder / shard, (moment, moment))
        if shard not in self.cut_shards:
            self._copies[shard, moment] = dict(self.files[shard])

    def touch(self, shard: str) -> None:
        self._date(shard, None)

    def restore(self, shard: str, mtime_ns: str) -> bool:
        """Put the shard back as it was at this time. Whether there is a copy."""
        moment = int(mtime_ns) // 10**9
        if (shard, moment) not in self._copies:
            return False
        self.files[shard] = dict(self._copies[shard, moment])
        self.write(shard)
        self._date(shard, moment)
        return True

    def reorder(self, shard: str, seed: int) -> None:
        keys = list(self.files[shard])
        np.random.default_rng(seed).shuffle(keys)
        self.files[shard] = {key: self.files[shard][key] for key in keys}
        self.write(shard)

    def replace(self, shard: str, key: str, *, is_later: bool) -> None:
        """Another image under the name: same size, and without `is_later` same time."""
        self.files[shard][key] = self._image()
        if not is_later:
            self.unseen.add((shard, key))
        self.write(shard, is_later=is_later)

    def cut(self, shard: str, share: float) -> None:
        """Only the first bytes of the file are left, until it is written again."""
        path = self.folder / shard
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        self.cut_shards.add(shard)
        self._date(shard, None)

    def content(self, item: Item) -> str:
        shard, key = item
        return content_hash(self.files[shard][key])

    def items(self) -> list[Item]:
        return [(shard, key) for shard in self.files for key in self.files[shard]]
