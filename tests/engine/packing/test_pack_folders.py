"""A folder tree as shards: every image once, its bytes as they were, and nothing else."""

import os
from collections import Counter
from pathlib import Path

import pytest

from engine.config.input_options import ImageConfig
from engine.errors import ConfigError, InputError, NotAcceptableError
from engine.packing.entries import MAX_BYTES, key_of
from engine.packing.outcome import require_acceptable
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.storage.location import Location
from tests.packed import every_member, failures, fill, image, members, packed
from tests.servers import s3_server


def test_every_image_of_a_tree_is_packed_once_with_its_bytes(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", ["b.png", "a/2.JPG", "a/1.jpeg", "a/x y/ü.png"])
    found, contents = packed(tmp_path / "in", tmp_path / "pool", shard_images=3)
    assert (found.images, found.failures, found.shards) == (4, 0, ["shard-000000.tar", "shard-000001.tar"])
    names = {"b.png": "b.png", "a/2.JPG": "a/2.jpg", "a/1.jpeg": "a/1.jpg", "a/x y/ü.png": "a/x y/ü.png"}
    assert every_member(tmp_path / "pool") == {names[name]: data for name, data in made.items()}
    assert contents.images == 4
    assert not (tmp_path / "pool/labels.csv").exists()
    shards, _ = list_shards([str(tmp_path / "pool/*.tar")], "")
    items = [item for shard in shards for item in read_shard(shard, ImageConfig())]
    assert [item.key for item in items] == ["b", "a/1", "a/2", "a/x y/ü"]
    assert [item.data for item in items] == [made[name] for name in ("b.png", "a/1.jpeg", "a/2.JPG", "a/x y/ü.png")]


def test_files_that_belong_to_an_image_go_with_it_and_others_are_counted(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", ["a.jpg", "a.seg.png", "b.jpg", "v.2.jpg", "c/d.png"])
    for name in ("a.json", "b.cls", "notes.txt", "README", ".hidden.jpg", "c/table.csv"):
        (tmp_path / "in" / name).write_bytes(name.encode())
    found, _ = packed(tmp_path / "in", tmp_path / "pool")
    assert every_member(tmp_path / "pool") == {
        "a.jpg": made["a.jpg"], "a.seg.png": made["a.seg.png"], "a.json": b"a.json",
        "b.jpg": made["b.jpg"], "b.cls": b"b.cls", "v_2.jpg": made["v.2.jpg"], "c/d.png": made["c/d.png"],
    }  # fmt: skip
    assert found.images == 4
    assert found.skipped == {".txt": 1, "no suffix": 1, ".csv": 1}
    assert found.companions == {".seg.png": 1, ".json": 1, ".cls": 1}


def test_images_that_would_have_one_key_have_keys_of_their_own_whatever_else_is_there(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", ["a.jpg", "a.png", "b.c.png", "b_c.png"])
    (tmp_path / "in/a.json").write_bytes(b"{}")
    found, _ = packed(tmp_path / "in", tmp_path / "pool")
    files = every_member(tmp_path / "pool")
    assert sorted(files.values()) == sorted(made.values())
    assert len({name.partition(".")[0] for name in files}) == 4
    assert found.skipped == {".json": 1}
    # The key of an image that is packed already stays; the new one has another.
    fill(tmp_path / "other", ["a.jpg"])
    packed(tmp_path / "other", tmp_path / "second")
    fill(tmp_path / "other", ["a.jpg", "a.bmp.png", "a.png"])
    packed(tmp_path / "other", tmp_path / "second")
    keys = Counter(name.partition(".")[0] for files in members(tmp_path / "second").values() for name in files)
    assert keys["a"] == 1


@pytest.mark.parametrize(
    ("path", "key"),
    [("a/b.jpg", "a/b"), ("a.b/c.d.jpg", "a.b/c_d"), ("__x__.jpg", "image__x__"), ("a\nb.png", "a_b"), ("n", "n")],
)
def test_a_key_is_one_that_a_tar_reader_takes_for_one(path: str, key: str) -> None:
    assert key_of(path) == key


def test_folders_name_classes_only_if_that_is_asked(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["cat/1.png", "cat/more/2.png", "dog, big/1.png", "alone.png"])
    _, contents = packed(tmp_path / "in", tmp_path / "pool", has_class_folders=True)
    assert contents.labels == {"cat": 2, "dog, big": 1}
    assert (tmp_path / "pool/labels.csv").read_text() == (
        'shard,key,label\nshard-000000.tar,cat/1,cat\nshard-000000.tar,cat/more/2,cat\nshard-000000.tar,"dog, big/1",'
        '"dog, big"\n'
    )
    fill(tmp_path / "splits", ["train/cat/1.png", "val/cat/1.png"])
    with pytest.raises(
        InputError, match=r"folders train, val are named after splits.*give one of them: .*splits/train"
    ):
        packed(tmp_path / "splits", tmp_path / "refused", has_class_folders=True)
    assert not list((tmp_path / "refused").rglob("*"))


def test_what_is_no_image_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["good.png"])
    (tmp_path / "in/page.jpg").write_bytes(b"<html>")
    (tmp_path / "in/empty.png").write_bytes(b"")
    with (tmp_path / "in/huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    found, contents = packed(tmp_path / "in", tmp_path / "pool")
    assert (found.images, found.failures) == (1, 3)
    assert failures(tmp_path / "pool") == {"page.jpg": "NotAnImage", "empty.png": "Empty", "huge.png": "TooManyBytes"}
    with pytest.raises(NotAcceptableError, match=r"3 of 4 images \(75.0%\) could not be packed: .*failures.parquet"):
        require_acceptable(Location.of(str(tmp_path / "pool")), contents, 0.05)
    require_acceptable(Location.of(str(tmp_path / "pool")), contents, 0.75)


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        ([], "no images in it; correct the path"),
        (["a.txt", "b.txt"], r"no images in it, but 2 x .txt; correct the path"),
        (["a.parquet"], r"give the Parquet files: '.*/in/\*\*/\*.parquet'"),
        (["a.mp4"], "for a frame every second of each video: --every 1"),
    ],
)
def test_a_source_without_an_image_is_refused_and_leaves_nothing(names: list[str], advice: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_bytes(b"x")
    with pytest.raises(InputError, match=advice):
        packed(tmp_path / "in", tmp_path / "pool")
    assert not list((tmp_path / "pool").rglob("*"))


def test_a_source_that_is_not_there_and_a_pool_inside_of_it_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such file or folder"):
        packed(tmp_path / "absent", tmp_path / "pool")
    fill(tmp_path / "in", ["a.png"])
    for pool in (tmp_path / "in", tmp_path / "in/pool"):
        with pytest.raises(ConfigError, match="packed into it"):
            packed(tmp_path / "in", pool)
    with pytest.raises(ConfigError, match="--label-column: only a list"):
        packed(tmp_path / "in", tmp_path / "pool", label_column="x")


def test_links_are_followed_once(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", ["a/1.png"]) | fill(tmp_path / "elsewhere", ["2.png"])
    (tmp_path / "in/a/round").symlink_to(tmp_path / "in")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/3.png").symlink_to(tmp_path / "elsewhere/2.png")
    (tmp_path / "in/dangling.png").symlink_to(tmp_path / "nowhere")
    packed(tmp_path / "in", tmp_path / "pool")
    expected = {"a/1.png": made["a/1.png"], "linked/2.png": made["2.png"], "3.png": made["2.png"]}
    assert every_member(tmp_path / "pool") == expected
    os.unlink(tmp_path / "in/3.png")  # noqa: PTH108


@pytest.mark.heavy
def test_a_tree_in_a_bucket_is_packed_into_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server("trees") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        source = Location.of("s3://trees/in")
        made = {f"{folder}/{n}.png": image(n) for n, folder in enumerate("abab")}
        for name, data in made.items():
            (source / name).write_bytes(data)
        packed("s3://trees/in", "s3://trees/pool", shard_images=3)
        for name, size in Location.of("s3://trees/pool").children().items():
            if name.endswith(".tar"):
                content = (Location.of("s3://trees/pool") / name).read_bytes()
                assert len(content) == size
                (tmp_path / name).write_bytes(content)
        assert every_member(tmp_path) == made
