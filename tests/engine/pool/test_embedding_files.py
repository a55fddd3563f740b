"""Every item gets its own vector, exactly, from one file or many, or is named with its fault."""

import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError, InputError
from engine.pool import embedding_files, embedding_parquet
from engine.pool.embedding_files import EmbeddingFiles, index_embeddings
from engine.pool.vectors import VectorError
from engine.storage.location import Location
from tests.servers import s3_server

LENGTH = 4
VECTOR = [1.0, 2.0, 3.0, 4.0]
Rows = list[tuple[Any, Any, Any]]


def cifar() -> Path:
    data = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[4] / "shared/data")) / "cifar10-embeddings"
    return data if data.exists() else pytest.skip("no cifar10-embeddings below VAAL_DATA or ../shared/data")


def table(rows: Rows, kind: pa.DataType | None = None) -> pa.Table:
    shards, keys, vectors = zip(*rows, strict=True)
    kind = kind or pa.list_(pa.float32(), LENGTH)
    return pa.table({"shard": pa.array(shards), "key": pa.array(keys), "embedding": pa.array(vectors, kind)})


def indexed(folder: Path, content: pa.Table, **options: Any) -> EmbeddingFiles:
    pq.write_table(content, folder / "a.parquet", **options)
    return index_embeddings(str(folder / "a.parquet"))


def random_rows(num_shards: int = 7, num_items: int = 30) -> Rows:
    rng = np.random.default_rng(0)
    items = [(f"s{n}.tar", f"k{k}") for n in range(num_shards) for k in range(num_items)]
    return [(shard, key, rng.normal(size=LENGTH).astype(np.float32)) for shard, key in items]


@pytest.fixture(params=["whole", "in pieces"])
def _read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in pieces":
        monkeypatch.setattr(embedding_parquet, "CACHED_BYTES", 0)
        monkeypatch.setattr(embedding_parquet, "BATCH_ROWS", 11)


KINDS = [
    pa.list_(pa.float16(), LENGTH), pa.list_(pa.float64(), LENGTH),
    pa.list_(pa.float16()), pa.list_(pa.float32()), pa.large_list(pa.float64()),
]  # fmt: skip


@pytest.mark.usefixtures("_read")
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("row_group_size", [7, 1000])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_vectors_are_those_of_the_rows(tmp_path: Path, kind: Any, row_group_size: int, is_sorted: bool) -> None:
    rows = random_rows()
    rows = [(shard, key, vector.astype(kind.value_type.to_pandas_dtype())) for shard, key, vector in rows]
    order = range(len(rows)) if is_sorted else np.random.default_rng(1).permutation(len(rows))
    # In two files, and a folder with another beside them.
    content = table([rows[n] for n in order], kind)
    pq.write_table(content[:100], tmp_path / "1.parquet", row_group_size=row_group_size)
    pq.write_table(content[100:], tmp_path / "2.parquet", row_group_size=row_group_size, write_statistics=is_sorted)
    files = pickle.loads(pickle.dumps(index_embeddings(str(tmp_path / "*.parquet"))))
    assert (files.length, files.num_rows) == (LENGTH, len(rows))
    for shard in [f"s{n}.tar" for n in range(7)]:
        found = files.vectors_of(shard)
        expected = {key: vector for of, key, vector in rows if of == shard}
        assert found.rows.keys() == expected.keys()
        assert not found.faults
        for key, vector in expected.items():
            np.testing.assert_array_equal(found.of(key), vector.astype(np.float32))
    assert not files.vectors_of("s.tar").rows


@pytest.mark.usefixtures("_read")
@pytest.mark.parametrize("is_fixed", [True, False])
def test_a_faulty_item_is_named_and_no_other_suffers(tmp_path: Path, is_fixed: bool) -> None:
    rows: Rows = [
        ("a.tar", "good", VECTOR),
        ("a.tar", "nan", [1.0, float("nan"), 1.0, 1.0]),
        ("a.tar", "inf", [1.0, float("inf"), 1.0, 1.0]),
        ("a.tar", "gap", [1.0, None, 1.0, 1.0]),
        ("a.tar", "zero", [0.0] * LENGTH),
        ("a.tar", "null", None),
        ("a.tar", "equal", VECTOR),
        ("a.tar", "other", [9.0] * LENGTH),
        ("b.tar", "good", [5.0] * LENGTH),
        ("a.tar", "twice", VECTOR),
        ("a.tar", "equal", VECTOR),
        ("a.tar", "twice", [2.0] * LENGTH),
    ]
    expected = {
        "nan": "NotFinite", "inf": "NotFinite", "gap": "NotFinite", "zero": "AllZero", "null": "NoVector",
        "equal": "TwoVectors", "twice": "TwoVectors", "absent": "NoVector",
    }  # fmt: skip
    if not is_fixed:
        rows += [("a.tar", "short", VECTOR[:3]), ("a.tar", "long", [*VECTOR, 1.0]), ("a.tar", "empty", [])]
        expected |= dict.fromkeys(["short", "long", "empty"], "WrongLength")
    found = indexed(tmp_path, table(rows, None if is_fixed else pa.list_(pa.float32()))).vectors_of("a.tar")
    assert set(found.rows) == {"good", "other"}
    np.testing.assert_array_equal(found.of("good"), np.float32(VECTOR))
    np.testing.assert_array_equal(found.of("other"), np.full(LENGTH, 9, np.float32))
    for key, kind in expected.items():
        with pytest.raises(VectorError) as refused:
            found.of(key)
        assert refused.value.kind == kind


def test_two_rows_of_an_item_are_seen_across_files(tmp_path: Path) -> None:
    for name in "xy":
        pq.write_table(table([("a.tar", "k", VECTOR), ("a.tar", name, VECTOR)]), tmp_path / f"{name}.parquet")
    found = index_embeddings(str(tmp_path / "{x,y}.parquet")).vectors_of("a.tar")
    assert set(found.rows) == {"x", "y"}
    assert found.faults["k"].kind == "TwoVectors"


REFUSED = {
    "one column 'key' is needed among 'shard', 'embedding'": lambda t: t.drop_columns(["key"]),
    "one column 'embedding' is needed": lambda t: t.append_column("embedding", t["embedding"]),
    "column 'shard' is int64; give strings": lambda t: t.set_column(0, "shard", pa.array([1])),
    "column 'embedding' is fixed_size_list<element: int32>": lambda t: t.set_column(
        2, "embedding", pa.array([[1]], pa.list_(pa.int32(), 1))
    ),
    "column 'embedding' is float; give lists of float16": lambda t: t.set_column(
        2, "embedding", pa.array([1.0], pa.float32())
    ),
    "a row without key": lambda t: t.set_column(1, "key", pa.array([None], pa.string())),
    "a row without shard": lambda t: t.set_column(0, "shard", pa.array([None], pa.string())),
    "no embedding in 1 file": lambda t: t[:0],
    "no embedding in 1 file ": lambda t: t.set_column(2, "embedding", pa.array([None], pa.list_(pa.float32()))),
    "vectors of 0 numbers": lambda t: t.set_column(2, "embedding", pa.array([[]], pa.list_(pa.float32()))),
}


@pytest.mark.parametrize("text", REFUSED)
def test_another_table_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    content = REFUSED[text](table([("a.tar", "k", VECTOR)]))
    with pytest.raises(InputError) as refused:
        indexed(tmp_path, content)
    assert text.strip() in str(refused.value)
    assert "a.parquet" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("_read")
@pytest.mark.parametrize("name", ["shard", "key"])
def test_a_row_without_shard_or_key_is_refused_where_no_statistics_tell(tmp_path: Path, name: str) -> None:
    content = table([("a.tar", "k", VECTOR), (*(None if n == name else "a.tar" for n in ("shard", "key")), VECTOR)])
    files = indexed(tmp_path, content, write_statistics=False)
    with pytest.raises(InputError, match=f"a row without {name}"):
        files.vectors_of("a.tar")


def test_files_that_do_not_fit_together_or_are_none_are_refused(tmp_path: Path) -> None:
    pq.write_table(table([("a.tar", "k", VECTOR)]), tmp_path / "1.parquet")
    pq.write_table(table([("a.tar", "l", [1.0])], pa.list_(pa.float32())), tmp_path / "2.parquet")
    with pytest.raises(InputError, match=r"2\.parquet: vectors of 1 numbers, those of .*1\.parquet have 4"):
        index_embeddings(str(tmp_path / "*.parquet"))
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match=r"text\.parquet: not a readable Parquet file"):
        index_embeddings(str(tmp_path / "text.parquet"))
    with pytest.raises(InputError, match="no such file"):
        index_embeddings(str(tmp_path / "none.parquet"))
    with pytest.raises(InputError, match="no file matches"):
        index_embeddings(str(tmp_path / "none*.parquet"))
    with pytest.raises(InputError, match="a folder; give"):
        index_embeddings(str(tmp_path))
    with pytest.raises(ConfigError, match="a brace without its partner"):
        index_embeddings(str(tmp_path / "{1,2.parquet"))


@pytest.mark.parametrize("change", ["shorter", "same size", "gone", "damaged"])
def test_a_file_that_changed_is_an_error_that_names_it(tmp_path: Path, change: str) -> None:
    files = indexed(tmp_path, table(random_rows()))
    path = tmp_path / "a.parquet"
    if change == "gone":
        path.unlink()
    elif change == "damaged":
        path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    else:
        os.utime(path, ns=(1, 1)) if change == "same size" else pq.write_table(table(random_rows(3)), path)
    expected = "no such file" if change == "gone" else r"a\.parquet: changed since it was read first"
    with pytest.raises(InputError, match=expected):
        files.vectors_of("s1.tar")
    with pytest.raises(InputError, match=expected):
        files.num_foreign({"s1.tar", "s2.tar"})


def test_rows_of_other_shards_are_counted(tmp_path: Path) -> None:
    for size in (1000, 30, 7):
        files = indexed(tmp_path, table(random_rows()), row_group_size=size)
        assert files.num_foreign({"s1.tar", "s3.tar", "none.tar"}) == 5 * 30
        assert files.num_foreign({f"s{n}.tar" for n in range(7)}) == 0


def test_the_fingerprint_is_that_of_the_files(tmp_path: Path) -> None:
    files = indexed(tmp_path, table(random_rows()))
    assert index_embeddings(str(tmp_path / "a.parquet")).fingerprint == files.fingerprint
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    assert index_embeddings(str(tmp_path / "a.parquet")).fingerprint != files.fingerprint


def test_only_row_groups_that_may_hold_the_shard_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = indexed(tmp_path, table(random_rows()), row_group_size=30)
    asked = list[int]()
    read = embedding_parquet._rows_of
    monkeypatch.setattr(embedding_parquet, "_rows_of", lambda file, n, shard: asked.append(n) or read(file, n, shard))
    assert len(files.vectors_of("s4.tar").rows) == 30
    assert asked == [4]


def test_row_groups_that_are_read_again_and_again_are_worth_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_files, "CACHED_BYTES", 100)
    assert re.search(r"a.parquet: a row group of \d+ MiB is read again", indexed(tmp_path, table(random_rows())).advice)
    assert not indexed(tmp_path, table(random_rows()), row_group_size=30).advice
    monkeypatch.undo()
    assert not indexed(tmp_path, table(random_rows())).advice


@pytest.fixture
def s3() -> Iterator[None]:
    with s3_server("bucket") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.mark.heavy
@pytest.mark.usefixtures("s3")
def test_files_on_an_object_store_are_read_alike() -> None:
    rows = random_rows(3)
    for n, size in enumerate((40, 50)):
        Location.of(f"s3://bucket/e/{n}.parquet").write_table(table(rows[40 * n : 40 * n + size]))
    files = index_embeddings("s3://bucket/e/*.parquet")
    found = files.vectors_of("s1.tar")
    for shard, key, vector in rows:
        if shard == "s1.tar":
            np.testing.assert_array_equal(found.of(key), vector)
    Location.of("s3://bucket/e/1.parquet").write_table(table(rows[40:89]))
    with pytest.raises(InputError, match=r"e/1\.parquet: changed since it was read first"):
        files.vectors_of("s2.tar")


@pytest.mark.heavy
def test_real_embeddings_are_read_exactly_and_decoded_once() -> None:
    path = cifar() / "test.parquet"
    files = index_embeddings(str(path))
    whole = pq.read_table(path)
    expected = whole["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 256).astype(np.float32)
    shards, keys = whole["shard"].to_pylist(), whole["key"].to_pylist()
    found = {shard: files.vectors_of(shard) for shard in sorted(set(shards))}
    assert sum(len(part.rows) for part in found.values()) == len(keys) == 10_000
    np.testing.assert_array_equal([found[s].of(k) for s, k in zip(shards, keys, strict=True)], expected)


@pytest.mark.heavy
def test_a_large_row_group_is_read_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_parquet, "CACHED_BYTES", 0)
    length, num_rows, num_shards = 192, 60_000, 60
    vectors = pa.array(np.random.default_rng(0).normal(size=num_rows * length).astype(np.float32))
    columns = {
        "shard": [f"s{n * num_shards // num_rows:03d}.tar" for n in range(num_rows)],
        "key": [f"{n}" for n in range(num_rows)],
        "embedding": pa.FixedSizeListArray.from_arrays(vectors, length),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=num_rows)
    del columns
    files = index_embeddings(str(tmp_path / "a.parquet"))
    usual = pa.default_memory_pool()
    pa.set_memory_pool(counting := pa.proxy_memory_pool(usual))
    try:
        found = files.vectors_of("s059.tar")
    finally:
        pa.set_memory_pool(usual)
    assert len(found.rows) == 1000
    # All embeddings together have 46 MB.
    assert counting.max_memory() < 15 << 20
    np.testing.assert_array_equal(found.of("59999"), vectors[-length:].to_numpy())
