"""Parquet with the bytes of images, as data sets on Hugging Face have it."""

import importlib
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.dirfs import DirFileSystem

from engine.errors import ConfigError, InputError
from engine.packing import entries
from engine.storage.location import _remote_filesystem
from tests.packed import every_member, failures, image, members, packed

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


def write(file: Path, rows: list[tuple[Any, Any]], row_group_size: int = 4) -> None:
    """A file of a data set with class numbers, whose names are beside them."""
    table = pa.table({"image": pa.array([row[0] for row in rows], STRUCT), "label": [row[1] for row in rows]})
    file.parent.mkdir(parents=True, exist_ok=True)
    table = table.replace_schema_metadata({"huggingface": json.dumps(CLASSES)})
    pq.write_table(table, file, row_group_size=row_group_size)


def struct(number: int) -> dict[str, Any]:
    return {"bytes": image(number), "path": "same.png"}


def test_rows_are_packed_with_the_names_of_their_classes(tmp_path: Path) -> None:
    write(tmp_path / "in/train-0.parquet", [(struct(n), n % 2) for n in range(10)])
    write(tmp_path / "in/test-0.parquet", [(struct(n), -1) for n in range(10, 13)])
    found, contents = packed(f"{tmp_path}/in/*.parquet", tmp_path / "pool", shard_images=3)
    keys = [f"test-0/{n:08d}" for n in range(3)] + [f"train-0/{n:08d}" for n in range(10)]
    expected = {f"{key}.png": image(n) for key, n in zip(keys, [10, 11, 12, *range(10)], strict=True)}
    assert every_member(tmp_path / "pool") == expected
    # A run of rows ends with its row group, and where a shard is full.
    assert [len(files) for files in members(tmp_path / "pool").values()] == [3, 3, 1, 3, 3]
    assert contents.labels == {"cat": 5, "dog": 5}
    write(tmp_path / "in/train-1.parquet", [(struct(20), 0)])
    found, _ = packed(f"{tmp_path}/in/*.parquet", tmp_path / "pool", shard_images=3)
    assert (found.images, found.shards) == (1, ["shard-000005.tar"])


def test_a_large_row_group_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in.parquet", [(struct(n), 0) for n in range(200)], row_group_size=200)
    packed(tmp_path / "in.parquet", tmp_path / "pool", shard_images=70)
    assert [len(files) for files in members(tmp_path / "pool").values()] == [70, 70, 60]
    assert sorted(every_member(tmp_path / "pool").values()) == sorted(image(n) for n in range(200))
    monkeypatch.setattr("engine.packing.image_tables.MOST_SHARD_BYTES", 10_000)
    monkeypatch.setattr("engine.packing.pack.MOST_SHARD_BYTES", 10_000)
    packed(tmp_path / "in.parquet", tmp_path / "bytes")
    assert len(members(tmp_path / "bytes")) > 3
    assert every_member(tmp_path / "bytes") == every_member(tmp_path / "pool")


def test_rows_without_an_image_are_failures(tmp_path: Path) -> None:
    rows = [(struct(0), 0), (None, 0), ({"bytes": None, "path": "a.jpg"}, 0), ({"bytes": b"text", "path": ""}, 1)]
    write(tmp_path / "in.parquet", rows)
    found, contents = packed(tmp_path / "in.parquet", tmp_path / "pool")
    assert (found.images, found.failures) == (1, 3)
    assert contents.failures == {"Missing": 2, "NotAnImage": 1}
    assert any("only the path 'a.jpg'" in line for line in contents.examples["Missing"])
    assert set(failures(tmp_path / "pool")) == {"in.parquet"}


def test_other_columns_and_names(tmp_path: Path) -> None:
    table = pa.table({"jpg": [image(0), image(1)], "species": ["owl", None], "n": [1, 2]})
    pq.write_table(table, tmp_path / "in.parquet")
    _, contents = packed(tmp_path / "in.parquet", tmp_path / "pool", label_column="species")
    assert contents.labels == {"owl": 1}
    with pytest.raises(InputError, match=r"no column 'kind'; --label-column names one of species, n"):
        packed(tmp_path / "in.parquet", tmp_path / "second", label_column="kind")
    pq.write_table(table.append_column("png", table["jpg"]), tmp_path / "two.parquet")
    with pytest.raises(InputError, match="the columns jpg, png have bytes of images; keep one"):
        packed(tmp_path / "two.parquet", tmp_path / "second")
    with pytest.raises(ConfigError, match="--classes-from-folders"):
        packed(tmp_path / "in.parquet", tmp_path / "second", has_class_folders=True)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="no column 'path' among 'x'"):
        packed(tmp_path / "none.parquet", tmp_path / "second")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "in.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"cut.parquet: not a readable Parquet file"):
        packed(tmp_path / "cut.parquet", tmp_path / "second")


def test_the_limit_on_bytes_is_that_of_scoring() -> None:
    assert entries.MAX_BYTES == 64 << 20


class Hub(DirFileSystem):
    """Stands where the package for Hugging Face's hub would: a file system of fsspec with paths of its kind."""

    protocol = "hf"
    root = ""

    def __init__(self, **_: Any) -> None:
        super().__init__(path=self.root, fs=fsspec.filesystem("file"))


def test_files_of_a_repository_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "root", str(tmp_path))
    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, "hf", Hub)
    _remote_filesystem.cache_clear()
    write(tmp_path / "datasets/o/n/data/train-0.parquet", [(struct(n), n % 2) for n in range(4)])
    write(tmp_path / "datasets/o/n/more/train-1.parquet", [(struct(4), 0)])
    _, contents = packed("hf://datasets/o/n/**/*.parquet", tmp_path / "pool")
    _remote_filesystem.cache_clear()
    assert list(every_member(tmp_path / "pool")) == [
        *(f"data/train-0/{n:08d}.png" for n in range(4)),
        "more/train-1/00000000.png",
    ]
    assert contents.labels == {"cat": 3, "dog": 2}
