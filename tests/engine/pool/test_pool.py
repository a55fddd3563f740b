"""The shard manifest: every way to name shards, and every way to name them wrongly."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ConfigError, InputError
from engine.pool.manifest import list_shards, read_shards, write_shards
from engine.pool.shard import Shard, read_ranges
from engine.pool.shards import Shards
from engine.storage.location import Location


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/x-00.tar", "a/x-01.tar", "b/x-02.tar", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"0123456789")
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["a/x-00.tar"], ["x-00.tar"]),
        (["a/x-{00..01}.tar"], ["x-00.tar", "x-01.tar"]),
        (["*/*.tar"], ["a/x-00.tar", "a/x-01.tar", "b/x-02.tar"]),
        (["**/*.tar"], ["a/x-00.tar", "a/x-01.tar", "b/x-02.tar"]),
        (["b/x-02.tar", "a/x-0[1-9].tar"], ["a/x-01.tar", "b/x-02.tar"]),
        (["{a,b}/x-??.tar"], ["a/x-00.tar", "a/x-01.tar", "b/x-02.tar"]),
    ],
)
def test_shards_are_named_below_their_deepest_common_folder(
    folder: Path, patterns: list[str], names: list[str]
) -> None:
    shards, root = list_shards([f"{folder}/{pattern}" for pattern in patterns], "")
    assert [shard.shard for shard in shards] == names
    assert all(shard.url == f"{root}/{shard.shard}" for shard in shards)
    assert all(shard.size_bytes == 10 and shard.num_items is None for shard in shards)


def test_relative_paths_and_a_given_root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shards, root = list_shards(["a/*.tar"], str(folder))
    assert root == str(folder)
    assert [shard.shard for shard in shards] == ["a/x-00.tar", "a/x-01.tar"]
    with pytest.raises(ConfigError, match=r"pool.root=.*/b: shard .*/a/x-00.tar is not below it"):
        list_shards(["a/*.tar"], str(folder / "b"))


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["a/*.zip"], r"--pool .*/a/\*.zip: no shard matches"),
        (["a/x-07.tar"], "--pool .*/a/x-07.tar: no such file"),
        (["a/x-{00..02}.tar"], "--pool .*/a/x-02.tar: no such file"),
        (["a"], r"--pool .*/a: a folder; give the shards in it, for example '.*/a/\*.tar'"),
        (["a/x-00.tar", "a/*.tar"], "--pool: .*/a/x-00.tar is listed 2 times"),
        (["a/x-00.tar", "empty.tar"], "--pool .*/empty.tar: the file is empty"),
    ],
)
def test_a_wrong_pool_is_refused_by_name(folder: Path, patterns: list[str], message: str) -> None:
    (folder / "empty.tar").touch()
    with pytest.raises(InputError, match=message):
        list_shards([f"{folder}/{pattern}" for pattern in patterns], "")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a/x-{00..01.tar", r"--pool .*\.tar: a brace without its partner"),
        ("s3://KEY:SECRET@bucket/{0..1}.tar", r"^s3://\*\*\*@bucket/0.tar: has a password"),
        ("ftp://host/{0..1}.tar", "^ftp://host/0.tar: ftp:// is not read; use a local path, s3://"),
        ("abfss://c@a.dfs.core.windows.net/x.tar", "write az://c/..., and export AZURE_STORAGE_ACCOUNT_NAME=a"),
        ("https://example.org/x.tar?key=SECRET", "has a password or options"),
        ("pipe:aws s3 cp s3://b/x.tar -", "is not read"),
        ("", "an empty path"),
    ],
)
def test_a_pattern_that_no_storage_has_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        list_shards([pattern], "")
    assert "SECRET" not in str(error.value)


def test_shards_of_two_storages_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no folder in common"):
        list_shards([f"{folder}/a/x-00.tar", "s3://bucket/x-01.tar"], "")


def test_a_glob_takes_tars_alone(folder: Path) -> None:
    with pytest.raises(InputError, match=r"1 of 2 matches are no .tar, first .*/b/notes.txt; give '.*/b/\*\.tar'"):
        list_shards([f"{folder}/b/*"], "")
    with pytest.raises(InputError, match=r"2 of 2 matches are no \.tar"):
        list_shards([f"{folder}/*"], "")
    (folder / "b/odd name").write_bytes(b"0123456789")
    assert [shard.shard for shard in list_shards([f"{folder}/b/odd name"], "")[0]] == ["odd name"]


def test_a_folder_may_have_a_bracket_in_its_name(folder: Path) -> None:
    (folder / "a").rename(folder / "a[1]")
    for pattern in ("a[1]/*.tar", "a[1]/x-{00..01}.tar", "a[1]/x-0?.tar"):
        assert [shard.shard for shard in list_shards([f"{folder}/{pattern}"], "")[0]] == ["x-00.tar", "x-01.tar"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_same_shard_by_a_link_is_refused(folder: Path, link: Callable[[Path, Path], None]) -> None:
    link(folder / "a/x-00.tar", folder / "a/y.tar")
    with pytest.raises(InputError, match=r"a/x-00.tar and .*/a/y.tar are the same file"):
        list_shards([f"{folder}/a/*.tar"], "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into the root folder")
def test_a_pool_may_lie_in_the_root_folder(folder: Path) -> None:
    file = Path(f"/{folder.name}-{os.getpid()}.tar")
    file.write_bytes(b"0123456789")
    try:
        shards, root = list_shards([str(file), f"{folder}/a/x-00.tar"], "")
    finally:
        file.unlink()
    assert root == "/"
    assert {shard.shard: shard.url for shard in shards} == {
        url.removeprefix("/"): url for url in (str(file), f"{folder}/a/x-00.tar")
    }


def test_no_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pool.shards: no shards; give --pool"):
        list_shards([], "")


def test_a_rewritten_shard_differs_even_at_the_same_size(folder: Path) -> None:
    pattern = f"{folder}/a/x-00.tar"
    (before,), _ = list_shards([pattern], "")
    os.utime(pattern, ns=(0, 10**18))
    (after,), _ = list_shards([pattern], "")
    assert before.etag_or_mtime != after.etag_or_mtime


def test_manifest_round_trip_and_ranges(folder: Path, tmp_path: Path) -> None:
    shards, _ = list_shards([f"{folder}/*/*.tar"], "")
    home = Location.of(str(tmp_path / "campaign"))
    write_shards(home, [shards[0]._replace(num_items=7), *shards[1:]])
    again = read_shards(home)
    assert again == [shards[0]._replace(num_items=7), *shards[1:]]
    assert list(read_ranges(again[0], [(8, 2), (0, 3)])) == [b"89", b"012"]
    with pytest.raises(InputError, match="byte 9: 1 of 2 bytes"):
        list(read_ranges(again[0], [(9, 2)]))


def test_items_are_counted_or_estimated_by_bytes() -> None:
    def shard(size: int, num_items: int | None) -> Shard:
        return Shard("s", "u", size, "t", num_items)

    assert Shards.of([shard(10, 5), shard(90, 7)]).estimated_items() == 12
    assert Shards.of([shard(10, 5), shard(90, None)]).estimated_items() == 50
    assert Shards.of([shard(10, 0), shard(90, None)]).estimated_items() == 1
    assert Shards.of([shard(90, None)]).estimated_items(Shards.of([shard(10, 5), shard(90, None)])) == 45
