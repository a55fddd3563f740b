"""A damaged shard costs itself: training goes on without it, and says so."""

from itertools import islice
from pathlib import Path

import pytest

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import NotAcceptableError
from engine.pool.manifest import list_shards
from engine.training.plan import require_few
from engine.training.streams import Pool, UnlabelledStream, count_trainable
from tests.engine.training.test_batches import deal_of, read, small  # noqa: F401


def test_a_damaged_shard_is_left_out_and_named(small: Pool, tmp_path: Path) -> None:  # noqa: F811
    names = [Path(shard.url).name for shard in small.shards]
    for name in names:
        content = (Path(small.shards[0].url).parent / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2 + 100] if name == names[1] else content)
    shards, _ = list_shards([f"{tmp_path}/*.tar"], "")
    pool, left_out = small._replace(shards=shards), dict[str, str]()
    counts = count_trainable(pool, left_out)
    whole = count_trainable(small)
    assert counts.tolist() == [whole[0], 0, whole[2]]
    assert list(left_out) == [names[1]]
    assert "cut off" in left_out[names[1]]
    taken = {item for stream in range(8) for item in read(pool, deal_of(pool, 8), stream, 40)}
    assert {shard for shard, _ in taken} == {names[0], names[2]}
    # A pool that is too large to be counted meets the damage on its way.
    stream = UnlabelledStream(pool, deal_of(pool, 1, counted=False), 0)
    assert len(list(islice(stream, 400))) == 400
    assert list(stream.left_out) == [names[1]]
    config = CampaignConfig()
    with pytest.raises(NotAcceptableError, match=r"cut off.*damaged shards are \d+.\d% of the pool"):
        require_few(config, shards, left_out)
    require_few(override(config, {"score.max_bad_fraction": 1.0}, "test"), shards, left_out)
