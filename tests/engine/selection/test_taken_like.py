"""By the taken images that are like some items, duplicates are found as by all taken images, whatever the blocks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from engine.selection import taken_like as module
from engine.selection.collecting import Wish
from engine.selection.duplicates import Mode, find_duplicates
from engine.selection.order import Ranking
from engine.selection.reduction import RowQuery, count, gather
from engine.selection.sources import Source, Sources, with_taken
from engine.selection.taken_like import COMPARED, Comparison, taken_like
from engine.tables.selections import row_schema
from tests.committed import NUM_LATENTS, commit, location
from vaal.duplicates.perceptual_hash import HASH_BYTES

NUM_SHARDS, NUM_ROWS, COSINE = 4, 40, 0.99
QUERY = RowQuery(-np.inf, 0, row_schema(NUM_LATENTS), Ranking())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sources]:
    """Shards with many images of like bytes, pictures and latents, most of them taken, keys in no order."""
    folder, found = tmp_path_factory.mktemp("scores"), []
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (30, HASH_BYTES), np.uint8)
    for shard in [f"{number}.tar" for number in range(NUM_SHARDS)]:
        keys = [f"{number:02d}" for number in rng.permutation(NUM_ROWS).tolist()]
        hashes = [pictures[number].tobytes() if number < 30 else None for number in rng.integers(0, 40, NUM_ROWS)]
        others = {
            "content_hash": [f"{number:02d}" for number in rng.integers(0, 90, NUM_ROWS).tolist()],
            "perceptual_hash": pa.array(hashes, pa.binary(HASH_BYTES)),
            "latent": rng.normal(size=(NUM_ROWS, NUM_LATENTS)).astype(np.float16).tolist(),
        }
        record = commit(folder, shard, [(key, 0.0) for key in keys], 7, others=others)
        taken = pa.array([key for key in keys if int(key) % 4] + ["gone"], pa.string())
        found.append(Source(record, taken, pa.array([], pa.string())))
    found.append(Source(commit(folder, "open.tar", [("x", 0.0)]), *[pa.array([], pa.string())] * 2))
    return folder, Sources.of(found)


def all_rows(folder: Path, sources: Sources, most: int = 10**6, seed: int = 0) -> pa.Table:
    """What is taken, or `most` of it."""
    counted = count(location(folder), sources, Wish(0), lambda _: None)
    assert counted.taken_F.tolist() == [30] * NUM_SHARDS + [0]
    asked = with_taken(sources, counted.taken_F, most, seed)
    return gather(location(folder), asked, counted, QUERY, lambda _: None).taken


def places(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))


@pytest.mark.parametrize("size", [1, 57, 1000])
@pytest.mark.parametrize("mode", ["exact", "near"])
def test_duplicates_are_those_by_everything_that_is_taken(
    sources: tuple[Path, Sources], size: int, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (rng, everything) = sources[0], (np.random.default_rng(1), all_rows(*sources))
    # Every third item has the bytes of a taken one, every other one the picture of another, all the latent of a third.
    items = everything.take(rng.permutation(np.repeat(np.arange(0, 120, 6), 2)))
    number = np.arange(len(items))
    content, hashes, latent = (items[name].take(pa.array(rng.permutation(number))) for name in COMPARED)
    content = pc.if_else(pa.array(number % 3 == 0), content, pa.array([f"new {n}" for n in number]))
    hashes = pc.if_else(pa.array(number % 2 == 0), hashes, pa.scalar(None, hashes.type))
    made = pa.table([content, hashes, latent], names=COMPARED)
    compared = Comparison.of([made], QUERY.schema, mode, COSINE)
    monkeypatch.setattr(module, "BLOCK_ROWS", size)
    found = taken_like(location(folder), sources[1], QUERY, compared, lambda _: None)
    results = []
    for taken in (everything, found):
        names = [*places(taken), *range(len(items))]
        whole = pa.concat_tables([taken.select(COMPARED), compared.items])
        leader_N, kind_N = find_duplicates(whole, len(taken), mode, COSINE)
        results.append([(names[leader_N[n]], kind_N[n]) for n in range(len(taken), len(whole))])
    assert results[0] == results[1]
    assert {kind for _, kind in results[0]} >= ({"bytes", "picture", "latent"} if mode == "near" else {"bytes"})
    assert len(found) < len(everything)
    assert places(found) == sorted(places(found))


@pytest.mark.parametrize("most", [0, 11, 120])
def test_a_sample_of_what_is_taken_is_drawn_by_its_places(sources: tuple[Path, Sources], most: int) -> None:
    everything, places = all_rows(*sources), np.arange(120)
    if most < 120:
        places = np.sort(np.random.default_rng([5, most]).choice(120, most, replace=False))
    assert all_rows(*sources, most, 5).equals(everything.take(places))


def test_nothing_is_read_where_duplicates_may_be_picked(sources: tuple[Path, Sources]) -> None:
    compared = Comparison.of([all_rows(*sources)], QUERY.schema, "off", None)
    assert not len(taken_like(location(Path("/none")), sources[1], QUERY, compared, lambda _: None))
