"""The unlabelled images that judge the networks are as many as is asked for, whatever is held out."""

import pytest

from engine.config.input_options import ImageConfig
from engine.pool.manifest import list_shards
from engine.pool.sight import Sight
from engine.simulation.demo_pools import DemoPool
from engine.tables.by_shard import ByShard
from engine.training.batches import unlabelled_sample
from engine.training.streams import Pool
from tests.engine.training.test_batches import deal_of


@pytest.mark.parametrize("held_out", [0.0, 0.2, 0.5])
def test_as_many_images_judge_as_are_asked_for(pool: DemoPool, held_out: float) -> None:
    shards, _ = list_shards(pool.shards, "")
    whole = Pool(shards, Sight(ImageConfig(size=8, channels=1)), 2, ByShard.of_items([]), held_out)
    deal = deal_of(whole, 8)
    for most in (100, 300):
        assert abs(len(unlabelled_sample(whole, deal, most).fold_N) - most) < 4 * most**0.5
