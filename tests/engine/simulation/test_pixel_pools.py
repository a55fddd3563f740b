"""The memory that the images of an experiment take: they are the most of it."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from engine.config.input_options import ImageConfig
from engine.pool.images import decode
from engine.simulation.experiment import Experiment
from engine.simulation.pixel_pools import read_images
from engine.simulation.setups import setup_of
from engine.simulation.worlds import load
from tests.rounds import encoded, write_shard

IMAGES, SIDE = 100, 96


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of a pool, one of a test set, and their classes."""
    digits, rows = load_digits(), []
    for name, begin in (("train-0", 0), ("train-1", IMAGES // 2), ("test-0", IMAGES)):
        places = range(begin, begin + IMAGES // 2)
        files = {f"{place:04d}.png": encoded((digits.images[place] * 15).astype(np.uint8)) for place in places}
        write_shard(tmp_path / f"{name}.tar", files)
        rows += [(f"{name}.tar", f"{place:04d}", str(digits.target[place])) for place in places]
    pq.write_table(
        pa.table(dict(zip(("shard", "key", "label"), zip(*rows, strict=True), strict=True))), tmp_path / "o.parquet"
    )
    return tmp_path


def experiment_of(folder: Path, size: int) -> Experiment:
    return Experiment.model_validate({
        "pool": {"shards": f"{folder}/train-*.tar", "size": size}, "oracle": {"labels": f"{folder}/o.parquet"},
        "test": {"shards": f"{folder}/test-*.tar"}, "first_labels": {"kind": "random", "count": 10}, "budget": 5,
        "tasks": ["small"], "strategies": [{"name": "v"}], "campaign": {"image.size": SIDE},
    })  # fmt: skip


def peak_of(made: Callable[[], Any]) -> float:
    """The most memory that is taken, as a share of the pool's pixels. It is made once before, so that nothing is
    imported then."""
    made()
    tracemalloc.start()
    try:
        made()
        return tracemalloc.get_traced_memory()[1] / (IMAGES * SIDE * SIDE * 3)
    finally:
        tracemalloc.stop()


def test_images_are_held_once_while_they_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the decoder itself allocates is not seen here.
    monkeypatch.setattr("engine.simulation.pixel_pools.decode", lambda data, image: decode(data, image).copy())
    assert peak_of(lambda: read_images(f"{folder}/train-*.tar", ImageConfig(size=SIDE), {})) < 1.4


@pytest.mark.parametrize(("size", "share"), [(0, 0.1), (IMAGES // 2, 0.6)])
def test_a_setup_takes_no_more_than_the_pixels_that_it_draws(folder: Path, size: int, share: float) -> None:
    experiment = experiment_of(folder, size)
    world = load(experiment)
    # The test set has half as many, and is mixed.
    assert peak_of(lambda: setup_of(world, experiment, 0)) < share + 0.6


def test_a_pool_is_the_images_of_its_shards_sorted_by_shard_and_key(folder: Path) -> None:
    for size in (0, 60):
        experiment = experiment_of(folder, size)
        world = load(experiment)
        pool = setup_of(world, experiment, 0).pool
        assert pool.names() == sorted(pool.names())
        place = {name: number for number, name in enumerate(world.items.names())}
        expected = world.items.take(np.array([place[name] for name in pool.names()]))
        assert len(pool.names()) == (size or IMAGES)
        for found, column in zip(pool, expected, strict=True):
            assert np.array_equal(cast("Any", found), cast("Any", column))


def test_a_pool_in_another_order_than_its_shards_is_sorted(folder: Path) -> None:
    experiment = experiment_of(folder, 0)
    world = load(experiment)
    backwards = world.items.take(np.arange(IMAGES)[::-1])
    one, other = (setup_of(world._replace(items=items), experiment, 0).pool for items in (world.items, backwards))
    assert one.names() == other.names()
    assert np.array_equal(one.pixel_NSSC, other.pixel_NSSC)
