"""The streams of training: every unlabelled item once a pass, no labelled one, the same again for the same seed."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from engine.batches import Part, Pool, cache_labelled, labelled_batches, unlabelled_batches
from engine.config import ImageConfig
from engine.demo import DemoPool
from engine.errors import InputError
from engine.identity import fold_of
from engine.images import decode
from engine.pool import list_shards
from engine.shards import read_shard

IMAGE = ImageConfig(size=8, channels=1)


@pytest.fixture
def small(pool: DemoPool) -> Pool:
    """The first three shards: 675 items."""
    shards, _ = list_shards(pool.shards, "")
    return Pool(shards[:3], IMAGE, 2)


def pixels_of(pool: Pool) -> dict[tuple[str, str], bytes]:
    return {
        (shard.shard, item.key): decode(item.data, 8, 1, 10**6).tobytes()
        for shard in pool.shards
        for item in read_shard(shard)
    }


@pytest.mark.parametrize("world", [1, 2, 5])
def test_a_pass_holds_every_unlabelled_item_once(small: Pool, world: int) -> None:
    everything = pixels_of(small)
    labelled = set(sorted(everything)[::7])
    seen: Counter[bytes] = Counter()
    for rank in range(world):
        stream = unlabelled_batches(small, labelled, Part(rank, world), 1, (0, 0))
        # By whole shards when there are enough of them for all ranks, else by every n-th item of each.
        if world <= 3:
            order = np.random.default_rng((0, 0)).permutation(3)[rank::world]
            names = {small.shards[i].shard for i in order}
            count = sum(item not in labelled and item[0] in names for item in everything)
        else:
            numbers = [i % 225 for i in range(675)]
            count = sum(
                item not in labelled and number % world == rank
                for item, number in zip(everything, numbers, strict=True)
            )
        seen.update(batch.pixels_NHWC[0].tobytes() for batch in islice(stream, count))
    assert seen == Counter(pixels for item, pixels in everything.items() if item not in labelled)


def test_streams_follow_their_seed(small: Pool) -> None:
    def first(seed: tuple[int, int]) -> list[bytes]:
        stream = unlabelled_batches(small, set(), Part(0, 1), 10, seed)
        return [batch.pixels_NHWC.tobytes() for batch in islice(stream, 5)]

    assert first((0, 0)) == first((0, 0))
    assert first((0, 0)) != first((0, 1))
    assert first((0, 0)) != first((1, 0))


def test_batches_come_with_the_folds_of_their_items(small: Pool) -> None:
    folds = {pixels: fold_of(*item, 2) for item, pixels in pixels_of(small).items()}
    batch = next(unlabelled_batches(small, set(), Part(0, 1), 100, (0, 0)))
    assert [folds[image.tobytes()] for image in batch.pixels_NHWC] == batch.fold_N.tolist()


@pytest.mark.parametrize("world", [1, 3])
def test_labelled_items_are_dealt_and_drawn_evenly(small: Pool, tmp_path: Path, world: int) -> None:
    positions = [(s.shard, i.key, i.offset, i.size_bytes) for s in small.shards for i in list(read_shard(s))[:11]]
    everything = pixels_of(small)
    seen: Counter[bytes] = Counter()
    for rank in range(world):
        cached = cache_labelled(small, positions, Part(rank, world), tmp_path / str(rank))
        assert len(cached.fold_N) == 33 // world
        batches = labelled_batches(cached, 11, (0, rank))
        seen.update(image.tobytes() for b in islice(batches, 6 // world) for image in b.pixels_NHWC)
    expected = Counter(everything[shard, key] for shard, key, _, _ in positions)
    assert seen == expected + expected


def test_few_labelled_items_go_to_every_worker(small: Pool, tmp_path: Path) -> None:
    item = next(read_shard(small.shards[0]))
    positions = [(small.shards[0].shard, item.key, item.offset, item.size_bytes)]
    for rank in range(2):
        cached = cache_labelled(small, positions, Part(rank, 2), tmp_path / str(rank))
        assert next(labelled_batches(cached, 4, (0,))).pixels_NHWC.shape == (4, 8, 8, 1)


def test_a_pool_without_an_unlabelled_image_is_an_error_and_no_endless_loop(small: Pool, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no unlabelled image that decodes"):
        next(unlabelled_batches(small, set(pixels_of(small)), Part(0, 1), 4, (0, 0)))
    shard = small.shards[0]
    with pytest.raises(InputError, match="none of the 1 labelled images decodes"):
        cache_labelled(small, [(shard.shard, "x", 0, 100)], Part(0, 1), tmp_path / "cache")
