"""The numbers of items that scoring counted are noted beside the shards."""

from pathlib import Path

import pyarrow as pa

from engine.pool.manifest import PoolFacts, new_version, read_facts, read_shards, write_counts, write_shards
from engine.pool.shard import Shard
from engine.storage.location import Location


def test_counts_are_noted_and_all_else_stays(tmp_path: Path) -> None:
    home = Location(str(tmp_path / "c"))
    shards = [new_version(Shard(f"{n}.tar", f"/pool/{n}.tar", 9, "mtime:1", n or None, 1)) for n in range(3)]
    write_shards(home, shards, PoolFacts())
    facts = read_facts(home)
    write_counts(home, pa.chunked_array([["2.tar", "no.tar", "0.tar"]]), pa.array([None, 5, 7], pa.int64()))
    found = read_shards(home)
    assert [shard.num_items for shard in found] == [7, 1, None]
    assert [now._replace(num_items=None) for now in found] == [shard._replace(num_items=None) for shard in shards]
    assert read_facts(home) == facts
