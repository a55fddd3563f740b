"""However many labelled images are kept decoded, batches are the same; what is not kept is read again, or an error."""

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from engine.config.input_options import ImageConfig
from engine.errors import InputError
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.pool.sight import Sight
from engine.simulation.demo_pools import DemoPool
from engine.tables.by_shard import ByShard
from engine.training.batches import Batches
from engine.training.deal import Deal
from engine.training.labelled import Cache, Part, as_seen, cache_labelled, in_words
from engine.training.streams import Pool, count_trainable
from tests.engine.training.test_batches import positions
from tests.rounds import write_shard

IMAGE = ImageConfig(size=8, channels=1)


@pytest.fixture
def small(pool: DemoPool, tmp_path: Path) -> Pool:
    """Two shards of 60 images; every fourth is labelled."""
    listed, _ = list_shards(pool.shards[:1], "")
    contents = list(read_shard(listed[0], IMAGE))[:120]
    for name, part in (("a.tar", contents[:60]), ("b.tar", contents[60:])):
        write_shard(tmp_path / name, {f"{item.key}.png": item.data for item in part})
    shards, _ = list_shards([f"{tmp_path}/?.tar"], "")
    items = [(shard.shard, item.key) for shard in shards for item in read_shard(shard, IMAGE)]
    return Pool(shards, Sight(IMAGE), 2, ByShard.of_items(items[::4]), 0.0)


def batches_of(pool: Pool, cache: Cache) -> tuple[list[bytes], str, int]:
    """Some batches, over more than a pass; the line about the cache; and how many images it keeps."""
    labelled = cache_labelled(pool, positions(pool), range(8), 8, cache)
    deal = Deal(np.array([shard.size_bytes for shard in pool.shards]), 8, 0, count_trainable(pool))
    batches = islice(Batches(pool, labelled, deal, Part(0, 1), (29, 1, 3)), 9)
    found = [parts[0].labelled.seen_N.tobytes() + parts[0].unlabelled.seen_N.tobytes() for parts, _ in batches]
    return found, in_words(labelled.seen), labelled.seen.num_held


def test_batches_are_the_same_however_many_labelled_images_are_kept(small: Pool, tmp_path: Path) -> None:
    expected, line, num_held = batches_of(small, as_seen(small, tmp_path / "all"))
    assert (line, num_held, len(set(expected))) == ("", 30, 9)
    size = as_seen(small, tmp_path).item_bytes
    for most, room in ((0, 0), (3, 3 * size + 1), (29, 29 * size)):
        cache = as_seen(small, tmp_path / f"{most}", room)
        found, line, num_held = batches_of(small, cache)
        assert found == expected
        assert num_held == most
        assert line.startswith(f"{most} of a worker's 30 labelled images are kept decoded in {tmp_path}; the others")
        assert not most or cache.file.stat().st_size == most * size


def test_where_the_disk_gives_no_room_nothing_is_kept(
    small: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(122, "Disk quota exceeded")

    expected, *_ = batches_of(small, as_seen(small, tmp_path / "all"))
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    found, _, num_held = batches_of(small, as_seen(small, tmp_path / "none"))
    assert (found, num_held) == (expected, 0)
    assert not (tmp_path / "none").exists()


def test_an_image_that_is_not_kept_and_cannot_be_read_again_is_an_error(small: Pool, tmp_path: Path) -> None:
    places = [(*position[:4], None) for position in positions(small)]
    labelled = cache_labelled(small, places, range(1), 1, as_seen(small, tmp_path / "cache", 0))
    file, (_, _, offset, *_) = tmp_path / "a.tar", places[1]
    before, content = file.stat(), bytearray(file.read_bytes())
    content[offset : offset + 40] = b"?" * 40
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=r"a.tar: 1 of 3 labelled images could be used when .* cannot be used now"):
        labelled.at(np.arange(3))
