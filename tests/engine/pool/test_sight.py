"""What the networks see of an item is its own embedding, wherever it is read from, and no image is decoded for it."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import InputError
from engine.pool.identity import content_hash
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.pool.runs import read_run
from engine.pool.shard import ChangedShardError, Place, Shard
from engine.pool.sight import Sight, embedding_inputs, notes_on, sight_of
from engine.scoring.reading import Reading, read_chunks
from engine.scoring.watchdog import Attempts
from engine.tables.scores import unpack
from tests.rounds import write_shard

LENGTH, NUM_SHARDS, NUM_ITEMS = 6, 3, 40
FAULTY = "s-1.tar"
FAULTS = {
    "member": {"01": "NoVector", "02": "TwoVectors", "03": "NotFinite", "04": "WrongLength", "05": "Pickled"},
    "parquet": {"01": "NoVector", "02": "TwoVectors", "03": "NotFinite", "04": "WrongLength", "05": "AllZero"},
}


class Made(NamedTuple):
    sight: Sight
    shards: list[Shard]
    vectors: dict[tuple[str, str], np.ndarray[Any, Any]]
    faults: dict[str, str]


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def members_of(key: str, vector: Any, fault: str) -> dict[str, bytes]:
    """The files of a sample. Its image is none that could be decoded."""
    files = {f"{key}.png": f"no image {key}".encode() * 50, f"{key}.npy": npy(vector), f"{key}.json": b"{}"}
    if fault == "NoVector":
        del files[f"{key}.npy"]
    elif fault:
        others = {
            "TwoVectors": {f"{key}.NPY": npy(vector)},
            "NotFinite": {f"{key}.npy": npy(vector * np.nan)},
            "WrongLength": {f"{key}.npy": npy(vector[:-1])},
            "Pickled": {f"{key}.npy": npy(np.array([{}], object))},
        }
        files |= others[fault]
    return files


def rows_of(key: str, vector: Any, fault: str) -> list[tuple[str, Any]]:
    rows = {
        "NoVector": [],
        "TwoVectors": [(key, vector), (key, vector)],
        "NotFinite": [(key, vector * np.nan)],
        "WrongLength": [(key, vector[:-1])],
        "AllZero": [(key, vector * 0)],
    }
    return rows.get(fault, [(key, vector)])


@pytest.fixture(params=["member", "parquet"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    rng, vectors, table = np.random.default_rng(0), {}, list[tuple[str, str, Any]]()
    for n in range(NUM_SHARDS):
        shard, members = f"s-{n}.tar", dict[str, bytes]()
        for key in (f"{k:02}" for k in range(NUM_ITEMS)):
            fault = FAULTS[request.param].get(key, "") if shard == FAULTY else ""
            vectors[shard, key] = vector = rng.normal(size=LENGTH).astype(np.float16)
            if request.param == "member":
                members |= members_of(key, vector, fault)
            else:
                members |= members_of(key, vector, "NoVector")
                table += [(shard, *row) for row in rows_of(key, vector, fault)]
        write_shard(tmp_path / shard, members)
    source = "member:npy"
    if request.param == "parquet":
        source = f"{tmp_path}/*.parquet"
        columns = dict(zip(("shard", "key", "embedding"), zip(*table, strict=True), strict=True))
        columns["embedding"] = pa.array(columns["embedding"], pa.list_(pa.float16()))
        pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=50)
    shards = list_shards([f"{tmp_path}/*.tar"], "")[0]
    config = override(CampaignConfig(), {"pool.embeddings": source}, "test")
    return Made(sight_of(config, shards), shards, vectors, FAULTS[request.param])


def expected(made: Made, shard: str) -> dict[str, Any]:
    faults = made.faults if shard == FAULTY else {}
    return {key: vector for (of, key), vector in made.vectors.items() if of == shard and key not in faults}


def test_chunks_hold_the_embeddings_and_name_what_is_wrong(made: Made) -> None:
    assert (made.sight.shape, made.sight.dtype) == ((LENGTH,), np.float32)
    for shard in made.shards:
        (row,) = read_chunks(shard, Reading(made.sight, 2, 1, 60.0), Attempts())
        wanted = expected(made, shard.shard)
        items = unpack(row["items"][0].as_py())
        assert items["key"].to_pylist() == list(wanted)
        seen = np.frombuffer(row["seen"][0].as_buffer(), np.float32).reshape(-1, LENGTH)
        np.testing.assert_array_equal(seen, np.stack(list(wanted.values())).astype(np.float32))
        # No picture was looked at: there is none.
        assert items["perceptual_hash"].null_count == len(items)
        hashes = [content_hash(f"no image {key}".encode() * 50) for key in wanted]
        assert items["content_hash"].to_pylist() == hashes
        if shard.shard == FAULTY:
            bad = unpack(row["bad"][0].as_py())
            assert dict(zip(bad["key"].to_pylist(), bad["error"].to_pylist(), strict=True)) == made.faults
            assert set(bad["stage"].to_pylist()) == {"embedding"}
        else:
            assert not row["bad"][0].as_py()


def test_training_sees_the_same_of_whole_shards_runs_and_places(made: Made) -> None:
    for shard in made.shards:
        wanted = expected(made, shard.shard)
        items = list(read_shard(shard, made.sight.image, made.sight.companion))
        ends = [*range(0, shard.size_bytes, 8192), shard.size_bytes]
        runs = [
            item
            for begin, end in pairwise(ends)
            for item in read_run(shard, made.sight.image, begin, end, made.sight.companion)
        ]
        for way in (items, runs):
            found = {item.key: made.sight.decoded(item.data) for item in made.sight.contents(shard, way)}
            assert found.keys() == wanted.keys()
            for key, vector in wanted.items():
                np.testing.assert_array_equal(found[key], vector.astype(np.float32))
        chosen = [items[n] for n in (7, 39, 3, 0, 2)]
        places = [Place(item.key, item.offset, item.size_bytes, content_hash(item.data)) for item in chosen]
        for place, content in zip(places, made.sight.contents_at(shard, places), strict=True):
            vector = wanted.get(place.key)
            seen = made.sight.decoded(content)
            assert (seen is None) == (vector is None)
            if vector is not None:
                np.testing.assert_array_equal(seen, vector.astype(np.float32))


def test_another_image_at_a_place_is_an_error_where_the_embedding_is_beside_it(made: Made) -> None:
    if not made.sight.companion:
        pytest.skip("no image is read where embeddings are in files of their own")
    shard = made.shards[0]
    item = next(read_shard(shard, made.sight.image, "npy"))
    with pytest.raises(ChangedShardError, match="item 00 has other bytes"):
        list(made.sight.contents_at(shard, [Place("00", item.offset, item.size_bytes, content_hash(b"other"))]))


def test_embeddings_of_another_length_than_trained_on_are_refused(made: Made, tmp_path: Path) -> None:
    if made.sight.companion:
        pytest.skip("a file of each sample is refused alone")
    config = override(CampaignConfig(), {"pool.embeddings": f"{tmp_path}/*.parquet"}, "test")
    with pytest.raises(InputError, match="embeddings of 6 numbers, the networks were trained on 7"):
        sight_of(config, made.shards, 7)


def test_what_decides_the_embeddings_changes_with_their_files(made: Made, tmp_path: Path) -> None:
    source = "member:npy" if made.sight.companion else f"{tmp_path}/*.parquet"
    config = override(CampaignConfig(), {"pool.embeddings": source}, "test")
    before = embedding_inputs(config)
    assert before == embedding_inputs(config)
    assert not embedding_inputs(override(config, {"train.input": "pixels"}, "test"))
    if not made.sight.companion:
        path = tmp_path / "a.parquet"
        pq.write_table(pq.read_table(path)[1:], path)
        assert embedding_inputs(config) != before


def test_rows_of_other_shards_are_counted_and_not_used(made: Made) -> None:
    assert not notes_on(made.sight, made.shards)
    notes = notes_on(made.sight, made.shards[:2])
    expected = [] if made.sight.companion else ["40 of 120 rows in pool.embeddings are of shards that are not in the"]
    assert [note[:66] for note in notes] == [note[:66] for note in expected]


def test_without_any_usable_embedding_the_first_fault_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"k.png": b"x", "k.npy": b"no array"})
    shards = list_shards([f"{tmp_path}/a.tar"], "")[0]
    config = override(CampaignConfig(), {"pool.embeddings": "member:npy"}, "test")
    with pytest.raises(InputError, match=r"none of the first samples has a usable one; .*item k: not a .npy file"):
        sight_of(config, shards)
