"""A million shards are columns that say what their objects would say, in every question that is asked of them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.pool.manifest import new_version
from engine.pool.shard import GONE, Shard
from engine.pool.shards import NO_SHARDS, Shards

NAMES = st.text("ab/é\n", min_size=1, max_size=3)
SHARDS = st.builds(
    lambda name, size, items, joined, left: new_version(
        Shard(name, f"/pool/{name}", size, f"mtime:{size}", items, size, "", joined, *left)
    ),
    NAMES, st.integers(1, 9), st.none() | st.integers(0, 5), st.integers(0, 3),
    st.just((None, None)) | st.tuples(st.integers(0, 3), st.just(GONE)),
)  # fmt: skip
UNIQUE = st.lists(SHARDS, max_size=8, unique_by=lambda shard: shard.shard)


@given(UNIQUE, UNIQUE, st.integers(0, 3))
def test_columns_say_what_objects_say(shards: list[Shard], others: list[Shard], number: int) -> None:
    shards = sorted(shards)
    made, by_name = Shards.of(shards), {shard.shard: shard for shard in shards}
    assert (list(made), len(made), [made[place] for place in range(len(made))]) == (shards, len(shards), shards)
    assert made[1:] == shards[1:]
    assert list(made.in_round(number)) == [shard for shard in shards if shard.is_in(number)]
    assert made.have_left.tolist() == [shard.left is not None for shard in shards]
    names = [shard.shard for shard in others]
    assert made.find(names) == {name: by_name[name] for name in names if name in by_name}
    assert made.are_named(names).tolist() == [shard.shard in names for shard in shards]
    assert [made.named(name) for name in by_name] == shards
    merged = by_name | {shard.shard: shard for shard in others}
    assert list(made.merged(others)) == [merged[name] for name in sorted(merged)]
    moved = [shard._replace(url=f"/new/{shard.shard}", mtime_ns=0) for shard in shards]
    assert list(made.at_root("/new")) == moved
    assert made.at_root("/pool") == made
    assert made.with_column("version", "").with_new_versions() == made


def test_a_name_that_no_shard_has_is_said() -> None:
    made = Shards.of([Shard("b", "/b", 1, "", None)])
    for name in ("a", "b\0", "c"):
        with pytest.raises(KeyError):
            made.named(name)
    assert made.places_of(pa.chunked_array([["c", "b"]])).tolist() == [-1, 0]
    assert (len(NO_SHARDS), NO_SHARDS.in_round(0) == [], NO_SHARDS.num_bytes) == (0, True, 0)
    assert made.take(np.array([0, 0])).names.to_pylist() == ["b", "b"]
