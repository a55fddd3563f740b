"""What training reads: every unlabelled item once a pass, no labelled one, and the same for any number of workers."""

import json
import shutil
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config.input_options import ImageConfig
from engine.errors import InputError
from engine.pool.identity import content_hash, fold_of
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.pool.sight import Sight
from engine.simulation.demo_pools import DemoPool
from engine.tables.by_shard import ByShard
from engine.training.batches import Batches, MicroBatch, prefetched, unlabelled_sample
from engine.training.deal import Deal
from engine.training.labelled import Part, as_seen, cache_labelled
from engine.training.streams import Pool, UnlabelledStream, count_trainable
from tests.rounds import write_shard
from vaal.task.classifier import augmented

IMAGE = ImageConfig(size=8, channels=1)
LATENTS = 3


@pytest.fixture(scope="module")
def small(pool: DemoPool, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Three shards of very unequal sizes, every seventh item labelled: 210 items."""
    shards, _ = list_shards(pool.shards, "")
    folder = tmp_path_factory.mktemp("small")
    contents = [item for shard in shards[:2] for item in read_shard(shard, IMAGE)]
    for name, part in (("a.tar", contents[:3]), ("b.tar", contents[3:180]), ("c.tar", contents[180:210])):
        write_shard(folder / name, {f"{item.key}.png": item.data for item in part})
    listed, _ = list_shards([f"{folder}/*.tar"], "")
    items = [(shard.shard, item.key) for shard in listed for item in read_shard(shard, IMAGE)]
    return Pool(listed, Sight(IMAGE), 2, ByShard.of_items(items[::7]), 0.0)


def identities(pool: Pool, *, labelled: bool) -> list[tuple[str, str]]:
    return [
        (shard.shard, item.key)
        for shard in pool.shards
        for item in read_shard(shard, IMAGE)
        if ((shard.shard, item.key) in pool.labelled) == labelled
    ]


def positions(pool: Pool) -> list[Any]:
    return [
        (shard.shard, item.key, item.offset, item.size_bytes, content_hash(item.data))
        for shard in pool.shards
        for item in read_shard(shard, IMAGE)
        if (shard.shard, item.key) in pool.labelled
    ]


def deal_of(pool: Pool, num_streams: int, seed: int = 0, *, counted: bool = True) -> Deal:
    sizes = np.array([shard.size_bytes for shard in pool.shards])
    return Deal(sizes, num_streams, seed, count_trainable(pool) if counted else None, 8192)


def read(pool: Pool, deal: Deal, stream: int, count: int, state: Any = None) -> list[tuple[str, str]]:
    taken = islice(UnlabelledStream(pool, deal, stream, state), count)
    return [(pool.shards[shard].shard, item.key) for shard, item in taken]


@pytest.mark.parametrize("num_streams", [1, 3, 8])
def test_a_counted_pass_holds_every_unlabelled_item_once_in_streams_of_equal_length(
    small: Pool, num_streams: int
) -> None:
    deal = deal_of(small, num_streams)
    total = len(identities(small, labelled=False))
    for epoch in range(3):
        lengths = [sum(s.last - s.first for s in deal.slices(epoch, n)) for n in range(num_streams)]
        assert sum(lengths) == total
        assert max(lengths) - min(lengths) <= 1
        expected = Counter({item: epoch + 1 for item in identities(small, labelled=False)})
        ends = [sum(s.last - s.first for e in range(epoch + 1) for s in deal.slices(e, n)) for n in range(num_streams)]
        seen = Counter(item for n in range(num_streams) for item in read(small, deal, n, ends[n]))
        assert seen == expected


def test_an_order_follows_its_seed_and_changes_with_the_pass(small: Pool) -> None:
    once = read(small, deal_of(small, 1), 0, 180)
    assert read(small, deal_of(small, 1), 0, 180) == once
    assert read(small, deal_of(small, 1, 1), 0, 180) != once
    twice = read(small, deal_of(small, 1), 0, 360)
    assert sorted(twice[180:]) == sorted(once)
    assert twice[180:] != once
    assert [key for _, key in once] != sorted(key for _, key in once)


@pytest.mark.parametrize("num_streams", [1, 7])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("taken", [0, 1, 17, 179, 180, 181, 400])
def test_a_stream_goes_on_from_its_state(
    small: Pool, taken: int, counted: bool, num_streams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A buffer that is smaller than a shard: the stream stops in the middle of one.
    monkeypatch.setattr("engine.training.streams.SHUFFLE_ITEMS", 10 * num_streams)
    deal = deal_of(small, num_streams, counted=counted)
    stream = UnlabelledStream(small, deal, 0)
    before = list(islice(stream, taken))
    state = json.loads(json.dumps(stream.state()))
    assert len(before) == taken
    expected = list(islice(stream, 250))
    assert list(islice(UnlabelledStream(small, deal, 0, state), 250)) == expected


def gather(
    pool: Pool, tmp_path: Path, world: int, count: int, states: Any = None, augment: Any = None
) -> tuple[list[Any], Any]:
    """The first batches of all workers joined and put in one order, and the state after them."""
    deal = deal_of(pool, 8)
    joined: list[list[Any]] = [[] for _ in range(count)]
    streams: dict[str, Any] = {}
    number = 0
    for rank in range(world):
        part = Part(rank, world)
        labelled = cache_labelled(
            pool, positions(pool), part.streams(8), 8, as_seen(pool, tmp_path / f"cache-{world}-{rank}")
        )
        batches = Batches(pool, labelled, deal, part, (13, 1, LATENTS), states)
        batches.augment = augment
        taken = list(islice(batches, count))
        for n, (parts, _) in enumerate(taken):
            assert sum(micro.weight for micro in parts) == pytest.approx(len(parts[0].unlabelled.fold_N) * world / 13)
            joined[n] += rows(parts[0])
        streams |= taken[-1][1]["streams"]
        number = taken[-1][1]["batch"]
    return [sorted(rows) for rows in joined], json.loads(json.dumps({"batch": number, "streams": streams}))


def rows(micro: MicroBatch) -> list[Any]:
    count = len(micro.labelled.fold_N)
    pools = ((0, micro.labelled), (1, micro.unlabelled))
    return [
        (pool, images.seen_N[n].tobytes(), int(images.fold_N[n]), micro.noise_NZ[pool * count + n].tobytes())
        for pool, images in pools
        for n in range(count)
    ]


@pytest.mark.heavy
def test_any_number_of_workers_reads_the_same_batches_and_goes_on_from_any_other(small: Pool, tmp_path: Path) -> None:
    expected, _ = gather(small, tmp_path, 1, 30)
    assert [len(rows) for rows in expected] == [26] * 30
    for world in (2, 3, 8):
        found, _ = gather(small, tmp_path, world, 30)
        assert found == expected
    for world, other in ((2, 1), (2, 4), (8, 3)):
        _, state = gather(small, tmp_path, world, 11)
        found, _ = gather(small, tmp_path, other, 19, state)
        assert found == expected[11:]


def test_augmented_batches_too_depend_on_no_worker_and_no_interruption(small: Pool, tmp_path: Path) -> None:
    augment = partial(augmented, flips=True)
    expected, _ = gather(small, tmp_path, 1, 6, augment=augment)
    assert expected != gather(small, tmp_path, 1, 6)[0]
    _, state = gather(small, tmp_path, 2, 4, augment=augment)
    assert gather(small, tmp_path, 3, 2, state, augment)[0] == expected[4:]


def test_micro_batches_cut_a_batch_and_weigh_what_they_hold(small: Pool, tmp_path: Path) -> None:
    deal = deal_of(small, 8)
    labelled = cache_labelled(small, positions(small), range(8), 8, as_seen(small, tmp_path / "cache"))
    whole, _ = next(iter(Batches(small, labelled, deal, Part(0, 1), (13, 1, LATENTS))))
    parts, _ = next(iter(Batches(small, labelled, deal, Part(0, 1), (13, 3, LATENTS))))
    assert sorted(row for part in parts for row in rows(part)) == sorted(rows(whole[0]))
    assert [len(part.labelled.fold_N) for part in parts] == [4, 4, 5]
    assert [part.weight for part in parts] == pytest.approx([12 / 13, 12 / 13, 15 / 13])


def test_items_come_with_their_folds_and_labelled_ones_are_drawn_evenly(small: Pool, tmp_path: Path) -> None:
    pixels = {
        decode(item.data, ImageConfig(size=8, channels=1)).tobytes(): (shard.shard, item.key)
        for shard in small.shards
        for item in read_shard(shard, IMAGE)
    }
    labelled = cache_labelled(small, positions(small), range(8), 8, as_seen(small, tmp_path / "cache"))
    batches = Batches(small, labelled, deal_of(small, 8), Part(0, 1), (16, 1, LATENTS))
    drawn: Counter[tuple[str, str]] = Counter()
    for parts, _ in islice(batches, 15):
        for images in (parts[0].labelled, parts[0].unlabelled):
            items = [pixels[image.tobytes()] for image in images.seen_N]
            assert [fold_of(*item, 2) for item in items] == images.fold_N.tolist()
        drawn.update(pixels[image.tobytes()] for image in parts[0].labelled.seen_N)
    # 30 labelled items are few: each of 8 streams goes through all of them, one pass in 15 batches of 2.
    assert drawn == Counter(dict.fromkeys(identities(small, labelled=True), 8))


def test_many_labelled_items_are_dealt_to_the_streams(small: Pool, tmp_path: Path) -> None:
    places = positions(small)
    labelled = [
        cache_labelled(small, places * 2, range(n, 2, 2), 1, as_seen(small, tmp_path / str(n))) for n in range(1)
    ]
    assert len(labelled[0].rows[0]) == 60
    parts = [
        cache_labelled(small, places * 3, range(n, n + 1), 2, as_seen(small, tmp_path / f"part{n}")) for n in range(2)
    ]
    assert [len(part.fold_N) for part in parts] == [45, 45]
    assert sorted(np.concatenate([part.number_N for part in parts])) == list(range(90))


def test_a_stream_draws_its_own_labelled_items_in_passes(small: Pool, tmp_path: Path) -> None:
    labelled = cache_labelled(small, positions(small) * 3, range(2), 2, as_seen(small, tmp_path / "cache"))
    for stream in range(2):
        own = set(range(stream, 90, 2))
        for number in range(2):
            drawn = labelled.draw(stream, (0,), 45 * number, 45)
            assert {int(n) for n in labelled.number_N[drawn]} == own
        pieces = [labelled.draw(stream, (0,), begin, 18) for begin in range(0, 90, 18)]
        assert np.concatenate(pieces).tolist() == labelled.draw(stream, (0,), 0, 90).tolist()


def test_noise_is_new_for_every_item_and_batch(small: Pool, tmp_path: Path) -> None:
    labelled = cache_labelled(small, positions(small), range(8), 8, as_seen(small, tmp_path / "cache"))
    batches = Batches(small, labelled, deal_of(small, 8), Part(0, 1), (16, 1, LATENTS))
    noise = np.concatenate([parts[0].noise_NZ for parts, _ in islice(batches, 60)])
    assert len(np.unique(noise, axis=0)) == len(noise) == 60 * 32
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)


def test_what_is_held_out_is_read_by_neither_pool(small: Pool, tmp_path: Path) -> None:
    pool = small._replace(held_out=0.3)
    deal = deal_of(pool, 8)
    held_out = {item for item in identities(pool, labelled=False) if pool.is_held_out(*item)}
    assert 20 < len(held_out) < 90
    assert deal.counts is not None
    assert deal.counts.sum() == 180 - len(held_out)
    read_items = {item for stream in range(8) for item in read(pool, deal, stream, 40)}
    assert read_items == set(identities(pool, labelled=False)) - held_out
    judged = unlabelled_sample(pool, deal, 10_000)
    assert len(judged.fold_N) == len(held_out)
    labelled = cache_labelled(pool, positions(pool), range(8), 8, as_seen(pool, tmp_path / "cache"))
    assert len(labelled.fold_N) == sum(not pool.is_held_out(*i) for i in identities(pool, labelled=True))


def test_the_judged_sample_is_of_all_shards(small: Pool) -> None:
    counted = unlabelled_sample(small, deal_of(small, 8), 60)
    assert 40 < len(counted.fold_N) < 80


def test_a_pool_without_an_image_to_train_on_is_an_error_and_no_endless_loop(small: Pool, tmp_path: Path) -> None:
    everything = {(shard.shard, item.key) for shard in small.shards for item in read_shard(shard, IMAGE)}
    pool = small._replace(labelled=ByShard.of_items(everything))
    with pytest.raises(InputError, match="no unlabelled image to train on"):
        next(iter(UnlabelledStream(pool, deal_of(pool, 1, counted=False), 0)))
    shard = small.shards[0]
    with pytest.raises(InputError, match="none of 1 labelled images decodes"):
        cache_labelled(small, [(shard.shard, "x", 0, 100, None)], range(1), 1, as_seen(small, tmp_path / "cache"))


@pytest.mark.heavy
def test_an_image_that_does_not_decode_is_passed_over(small: Pool, tmp_path: Path) -> None:
    write_shard(tmp_path / "d.tar", {f"{n}.png": b"no image" for n in range(50)})
    shutil.copy(small.shards[1].url, tmp_path / "b.tar")
    shards, _ = list_shards([f"{tmp_path}/b.tar", f"{tmp_path}/d.tar"], "")
    pool = Pool(shards, Sight(IMAGE), 2, small.labelled, 0.0)
    labelled = cache_labelled(small, positions(small), range(8), 8, as_seen(small, tmp_path / "cache"))
    batches = Batches(pool, labelled, deal_of(pool, 8), Part(0, 1), (16, 1, LATENTS))
    seen = {image.tobytes() for parts, _ in islice(batches, 30) for image in parts[0].unlabelled.seen_N}
    assert len(seen) > 140
    alone = Pool(shards[1:], Sight(IMAGE), 2, ByShard.of_items([]), 0.0)
    batches = Batches(alone, labelled, deal_of(alone, 8), Part(0, 1), (16, 1, LATENTS))
    with pytest.raises(InputError, match="no unlabelled image decodes"):
        next(iter(batches))


def test_fewer_items_than_streams_are_read_by_each(small: Pool, tmp_path: Path) -> None:
    pool = small._replace(shards=small.shards[:1])
    deal = deal_of(pool, 8)
    labelled = cache_labelled(small, positions(small), range(8), 8, as_seen(small, tmp_path / "cache"))
    parts, _ = next(iter(Batches(pool, labelled, deal, Part(0, 1), (16, 1, LATENTS))))
    assert len(parts[0].unlabelled.fold_N) == 16


def test_an_error_ahead_comes_out_in_its_place() -> None:
    def source() -> Any:
        yield from range(3)
        raise InputError("broken")

    taken: list[int] = []
    with pytest.raises(InputError, match="broken"):
        taken.extend(prefetched(source()))
    assert taken == [0, 1, 2]
