"""The candidates are the definition's, whatever files, row groups, parts and bins; a file that is not right stops."""

import itertools
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.selection import parts, reduction
from engine.selection.collecting import Wish
from engine.selection.lowest import Lowest, LowestPlaces
from engine.selection.order import Ranking, ranking_by
from engine.selection.reduction import (
    RowQuery,
    SecondPass,
    count,
    first,
    gather,
    parts_of,
)
from engine.selection.sources import Draws, Source, Sources, with_draws, with_taken
from engine.storage.location import Location
from engine.tables.score_reader import read_scores
from engine.tables.scores import ShardRecord
from engine.tables.selections import row_schema
from tests.committed import NUM_LATENTS, Item, commit, commit_all, location

# Few distinct values, so that ties are the rule; and neighbours in the last bit, which share a bin.
LOGITS = [-3.5, float(np.nextafter(np.float32(-3.5), np.float32(0))), -0.0, 0.0, 1e-30, 2.0, float("inf")]
items_of_shards = st.lists(
    st.tuples(
        st.sampled_from(["a.tar", "b.tar", "b/a.tar", "ä.tar"]), st.text("0aAé", max_size=3), st.sampled_from(LOGITS)
    ),
    unique_by=lambda item: item[:2],
    max_size=40,
)


NO_KEYS = pa.array([], pa.string())


BY_VOTES = ranking_by("vote_entropy")


def definition(items: Iterable[Item], size: int, ranking: Ranking = Ranking()) -> list[tuple[str, str]]:  # noqa: B008
    def place(item: Item) -> tuple[float, ...]:
        logit = float(np.float32(item[2]))
        return (float(logit > 0), -logit) if ranking == BY_VOTES else (logit,)

    ordered = sorted(items, key=lambda item: (place(item), item[0], item[1]))
    return [item[:2] for item in ordered[:size]]


def sources_of(records: list[ShardRecord], taken: set[tuple[str, str]]) -> Sources:
    keys = {record.shard: [key for shard, key in taken if shard == record.shard] for record in records}
    return Sources.of(Source(record, pa.array(keys[record.shard], pa.string()), NO_KEYS) for record in records)


def reduce(
    folder: Path,
    sources: Sources,
    size: int,
    draws: Draws | None = None,
    ranking: Ranking = Ranking(),  # noqa: B008
) -> SecondPass:
    counted = count(location(folder), sources, Wish(size, ranking=ranking), lambda _: None)
    schema = row_schema(NUM_LATENTS, [ranking.ties] if ranking.ties else [])
    wanted = RowQuery(counted.bound(size), size, schema, ranking)
    drawn = with_draws(sources, [draws]) if draws else sources
    drawn = with_taken(drawn, counted.taken_F, 1000, 0)
    return gather(location(folder), drawn, counted, wanted, lambda _: None)


def names(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    items_of_shards, st.integers(0, 45), st.integers(1, 7), st.integers(0, 3), st.sampled_from([Ranking(), BY_VOTES])
)
@pytest.mark.heavy
def test_the_candidates_are_sort_everything_and_take_m(
    items: list[Item], size: int, group_rows: int, every: int, ranking: Ranking
) -> None:
    taken = {item[:2] for item in items[:: every + 1]} if every else set()
    with tempfile.TemporaryDirectory() as folder:
        sources = sources_of(commit_all(Path(folder), items, group_rows), taken)
        found = reduce(Path(folder), sources, size, ranking=ranking)
        counted = count(location(Path(folder)), sources, Wish(1), lambda _: None)
    left = [item for item in items if item[:2] not in taken]
    assert names(found.lowest) == definition(left, size, ranking)
    assert names(found.taken) == sorted(taken)
    by_shard = {s.record.shard: sum(item[0] == s.record.shard for item in left) for s in sources}
    assert counted.eligible_F.tolist() == list(by_shard.values())


@settings(max_examples=60, deadline=None)
@given(items_of_shards, st.integers(0, 20), st.lists(st.integers(0, 40), max_size=3))
def test_reduced_parts_merge_to_the_whole_in_any_tree(items: list[Item], size: int, cuts: list[int]) -> None:
    table = pa.table(
        dict(zip(("shard", "key", "score"), zip(*items, strict=True), strict=True))
        if items
        else {"shard": pa.array([], pa.string()), "key": pa.array([], pa.string()), "score": pa.array([], pa.float32())}
    )
    table = table.set_column(2, "score", table["score"].cast(pa.float32()))
    ends = [0, *sorted(cuts), len(items)]
    pieces = [table.slice(a, max(0, b - a)) for a, b in itertools.pairwise(ends)]
    tree = Lowest(size, partial(reduction._lowest_rows, Ranking()))
    for piece in reversed(pieces):
        tree.add(first(piece, size, Ranking()))
    assert (
        names(first(tree.result(), size, Ranking())) == names(first(table, size, Ranking())) == definition(items, size)
    )


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False), max_size=20), min_size=1, max_size=6),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_the_bound_is_the_mth_lowest_logit(shards: list[list[float]], counted_size: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        entries = [
            commit(Path(folder), f"{n}.tar", [(str(key), logit) for key, logit in enumerate(logits)])
            for n, logits in enumerate(shards)
        ]
        counted = count(location(Path(folder)), sources_of(entries, set()), Wish(counted_size), lambda _: None)
    everything = np.sort(np.array([logit for logits in shards for logit in logits], np.float32))
    enough = size <= min(counted_size, len(everything))
    assert counted.bound(size) == (-np.inf if size == 0 else everything[size - 1] if enough else np.inf)
    assert counted.lowest_F.tolist() == [min(map(np.float32, logits), default=np.inf) for logits in shards]


def test_the_logits_held_are_few() -> None:
    lows, held = LowestPlaces(10, Ranking()), []
    for begin in range(5000, 0, -25):
        values = np.arange(begin, begin + 25, dtype=np.float32)
        lows.add(values[values <= lows.cut])
        held.append(sum(map(len, lows._pieces)))
    assert max(held) < 20 + 25
    assert sorted(lows.result()) == list(range(25, 35))


def test_many_equal_logits_are_held_in_memory_of_twice_m() -> None:
    lowest, held = Lowest(10, partial(reduction._lowest_rows, Ranking())), []
    for begin in range(0, 5000, 25):
        keys = [f"{number:05d}" for number in range(begin, begin + 25)][::-1]
        lowest.add(pa.table({"shard": ["s"] * 25, "key": keys, "score": pa.array([0.5] * 25, pa.float32())}))
        held.append(sum(map(len, lowest._pieces)))
    assert max(held) <= 20
    assert sorted(lowest.result()["key"].to_pylist()) == [f"{number:05d}" for number in range(10)]


def test_ray_tasks_over_many_parts_find_the_same(
    tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    items = [(f"{n % 43 % 40:02d}.tar", str(n), float(np.float32(rng.integers(-50, 50) / 4))) for n in range(4000)]
    taken = {item[:2] for item in items[::9]}
    sources = sources_of(commit_all(tmp_path, items, 32), taken)
    draws = Draws(np.array([3, 0, 3]), np.array([5, 7, 0]))
    one = reduce(tmp_path, sources, 300, draws)
    counted = count(location(tmp_path), sources, Wish(300), lambda _: None)
    monkeypatch.setattr(parts, "PART_ROWS", 200)
    assert len(parts_of(sources)) == 20
    many = reduce(tmp_path, sources, 300, draws)
    again = count(location(tmp_path), sources, Wish(300), lambda _: None)
    assert again.eligible_F.tolist() == counted.eligible_F.tolist()
    assert len(set(counted.eligible_F.tolist())) > 1
    assert sorted(again.low_K) == sorted(counted.low_K)
    assert again.lowest_F.tolist() == counted.lowest_F.tolist()
    assert one.lowest.equals(many.lowest)
    assert one.taken.equals(many.taken)
    assert one.drawn.equals(many.drawn)
    assert names(many.lowest) == definition([item for item in items if item[:2] not in taken], 300)


def test_a_draw_is_the_item_at_its_place_among_those_that_can_be_picked(tmp_path: Path) -> None:
    items = [(shard, str(number), 0.0) for shard in ("a.tar", "b.tar") for number in range(20)]
    taken = {("a.tar", "0"), ("a.tar", "7"), ("b.tar", "3")}
    sources = sources_of(commit_all(tmp_path, items, 3), taken)
    draws = Draws(np.array([1, 0, 0, 1]), np.array([18, 0, 6, 2]))
    found = reduce(tmp_path, sources, 0, draws)
    assert names(found.drawn) == [("b.tar", "19"), ("a.tar", "1"), ("a.tar", "8"), ("b.tar", "2")]
    assert not len(found.lowest)


def test_row_groups_above_the_bound_are_not_read(tmp_path: Path) -> None:
    entry = commit(tmp_path, "a.tar", [(str(n), float(n)) for n in range(9)])
    content = bytearray((tmp_path / entry.file).read_bytes())
    sources = sources_of([entry], set())
    counted = count(location(tmp_path), sources, Wish(300), lambda _: None)
    wanted = RowQuery(2.0, 3, row_schema(NUM_LATENTS), Ranking())
    import pyarrow.parquet as pq

    last = pq.read_metadata(tmp_path / entry.file).row_group(2).column(1)
    begin = last.dictionary_page_offset or last.data_page_offset
    content[begin : begin + last.total_compressed_size] = bytes(last.total_compressed_size)
    (tmp_path / entry.file).write_bytes(content)
    found = gather(location(tmp_path), sources, counted, wanted, lambda _: None)
    assert names(found.lowest) == [("a.tar", "0"), ("a.tar", "1"), ("a.tar", "2")]


@pytest.mark.parametrize(("logit", "what"), [(float("nan"), "NaN"), (None, "missing")])
def test_an_item_without_a_score_is_an_error_with_file_and_key(tmp_path: Path, logit: Any, what: str) -> None:
    entry = commit(tmp_path, "a.tar", [("x", 1.0), ("y", 5.0), ("z", 2.0), ("w", logit)])
    with pytest.raises(InputError, match=rf"{entry.file}: damaged .*: the logit of w is {what}; .*run: vaal score"):
        reduce(tmp_path, sources_of([entry], set()), 1)


@pytest.mark.heavy
def test_a_byte_that_changed_anywhere_is_an_error_with_the_file_or_was_not_used(tmp_path: Path) -> None:
    entry = commit(tmp_path, "a.tar", [(str(n), float(n)) for n in range(5)])
    found, file = reduce(tmp_path, sources_of([entry], set()), 2), tmp_path / entry.file
    content, errors = file.read_bytes(), list[str]()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        try:
            assert reduce(tmp_path, sources_of([entry], set()), 2) == found
        except InputError as error:
            errors.append(str(error))
    assert len(content) / 20 < len(errors) < len(content) / 7
    assert all(f"{entry.file}: damaged since it was committed" in error for error in errors)


@pytest.mark.parametrize("place", [4, 200, -300, -1])
def test_a_byte_that_changed_in_a_file_without_checksums_is_an_error(tmp_path: Path, place: int) -> None:
    entry = commit(tmp_path, "a.tar", [(str(n), float(n)) for n in range(30)], has_checksums=False)
    reduce(tmp_path, sources_of([entry], set()), 1)
    content = bytearray((tmp_path / entry.file).read_bytes())
    content[place] ^= 1
    (tmp_path / entry.file).write_bytes(content)
    with pytest.raises(InputError, match=rf"{entry.file}: damaged since it was committed: its SHA-256"):
        reduce(tmp_path, sources_of([entry], set()), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"footer_sha256": "0" * 64}, "the SHA-256 of its footer is not the manifest's"),
        ({"footer_sha256": "", "sha256": "0" * 64}, "its SHA-256 is not the manifest's"),
        ({"size_bytes": 5}, "bytes, the manifest says 5"),
        ({"scored": 31}, "30 rows, the manifest says 31"),
        ({"file": "gone.parquet"}, "gone.parquet: cannot be read"),
    ],
)
def test_a_file_that_is_not_the_manifests_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    entry = commit(tmp_path, "a.tar", [(str(n), float(n)) for n in range(30)])._replace(**change)
    with pytest.raises(InputError, match=message):
        reduce(tmp_path, sources_of([entry], set()), 1)


def test_a_pool_without_files_or_items_has_no_candidates(tmp_path: Path) -> None:
    assert not len(reduce(tmp_path, Sources.of([]), 5).lowest)
    assert not len(reduce(tmp_path, sources_of([commit(tmp_path, "a.tar", [])], set()), 5).lowest)


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_scores_are_made_again_in_the_newest_round_alone(tmp_path: Path, content: bytes | None) -> None:
    folder = tmp_path / "rounds/000/scores"
    folder.mkdir(parents=True)
    entry = commit(folder, "a.tar", [("x", 1.0)])
    (folder / entry.file).unlink() if content is None else (folder / entry.file).write_bytes(content)
    for fix in (f" delete {folder}/manifest.json, then run: vaal score {tmp_path}", "its round is over: restore"):
        with pytest.raises(InputError, match=fix):
            read_scores(Location(str(folder)), entry, ["logit"])
        (tmp_path / "rounds/001").mkdir(exist_ok=True)
