"""What workers are sent says the same there, and is columns that the workers of a node map into their memory."""

import pickle
from typing import Any

import pyarrow as pa
import pytest

from engine.campaign.packed_positions import PLACES_SCHEMA, Positions
from engine.config.input_options import ImageConfig
from engine.pool.manifest import new_version
from engine.pool.shard import Shard
from engine.pool.shards import NO_SHARDS, Shards
from engine.pool.sight import Sight
from engine.tables.by_shard import ByShard
from engine.training.streams import Pool

pytestmark = pytest.mark.heavy
NUM = 20_000
SHARDS = Shards.of(
    new_version(Shard(f"{n:06d}.tar", f"s3://bucket/{n:06d}.tar", n, f"etag:{n}", n if n % 2 else None, n))
    for n in range(NUM)
)


def sent(value: Any) -> Any:
    """A value as another process has it: all but a few bytes of it are buffers, which Ray maps."""
    buffers = list[pickle.PickleBuffer]()
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    assert len(content) < 5000
    return pickle.loads(content, buffers=buffers)


def test_a_pool_is_sent_as_a_table() -> None:
    pool = Pool(SHARDS, Sight(ImageConfig()), 5, ByShard.of_items([("a", "b"), ("c", "d")]), 0.2, 3)
    found = sent(pool)
    assert found.shards == SHARDS
    assert (found.num_folds, found.held_out, found.round, set(found.labelled)) == (5, 0.2, 3, {("a", "b"), ("c", "d")})
    assert sent(pool._replace(shards=NO_SHARDS)).shards == NO_SHARDS


def test_positions_are_sent_once_in_their_order() -> None:
    rows = [(f"s-{n % 7}", f"{n:05d}", NUM - n, 10, f"{n:032x}" if n % 3 else None) for n in range(NUM)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = pa.table(columns, names=PLACES_SCHEMA.names).cast(PLACES_SCHEMA)
    positions = Positions.of(table)
    expected = sorted(rows, key=lambda row: (row[0], row[2]))
    assert list(positions) == expected
    assert [positions[n] for n in (0, NUM - 1)] == [expected[0], expected[-1]]
    assert positions[5:7] == expected[5:7]
    assert list(sent(positions)) == expected
    assert list(sent(positions).items()) == [row[:2] for row in expected]
