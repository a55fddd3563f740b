"""A shard that is cut into runs gives every sample once, wherever the cuts are."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.pool.runs import holds_archives, read_run
from engine.pool.shard import ChangedShardError, DamagedShardError, Shard
from engine.storage.location import Location
from engine.storage.retries import RetryingStream
from tests.servers import s3_server
from tests.tars import END, FIXED, FORMATS, IMAGE, LONG_NAMES, VARIABLE, archive, header, pax, record

LARGE = [("a.jpg", b"a" * 700), ("b.jpg", b"b" * 40_000), ("c.json", b"{}"), ("c.jpg", b"c" * 900), ("d.jpg", b"d")]
ODD = [("__meta__", b"1"), ("plain", b"\xff\xd8\xff\xe0" * 50), *VARIABLE, ("folder/no-suffix", b"x" * 600), *FIXED]


def shard_of(path: Path, content: bytes) -> Shard:
    path.write_bytes(content)
    (shard,) = list_shards([str(path)], "")[0]
    return shard


def cut(shard: Shard, run_bytes: int) -> list[str]:
    """The keys without a fault of all runs."""
    cuts = [*range(0, shard.size_bytes, run_bytes), shard.size_bytes]
    return [item.key for begin, end in pairwise(cuts) for item in read_run(shard, IMAGE, begin, end) if not item.fault]


@pytest.mark.parametrize("name", ["ustar", "gnu", "pax"])
@pytest.mark.parametrize("members", [VARIABLE, FIXED, LARGE, ODD], ids=["variable", "fixed", "large", "odd"])
def test_runs_of_any_length_give_every_sample_once(members: list[tuple[str, bytes]], name: str, tmp_path: Path) -> None:
    shard = shard_of(tmp_path / "a.tar", archive(members, FORMATS[name]))
    whole = [item for item in read_shard(shard, IMAGE) if not item.fault]
    assert len(whole) > 3
    for run_bytes in (512, 1024, 1536, 4096, 10_240, 1 << 20):
        assert cut(shard, run_bytes) == [item.key for item in whole]
    assert [item for item in read_run(shard, IMAGE, 0, shard.size_bytes) if not item.fault] == whole


@pytest.mark.parametrize("name", ["gnu", "pax"])
def test_names_in_extended_headers_are_whole(name: str, tmp_path: Path) -> None:
    shard = shard_of(tmp_path / "a.tar", archive(LONG_NAMES, FORMATS[name]))
    keys = [item.key for item in read_shard(shard, IMAGE)]
    for run_bytes in (512, 1024, 2048):
        assert set(cut(shard, run_bytes)) == set(keys)


def test_a_run_reads_a_little_more_than_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = shard_of(tmp_path / "a.tar", archive([(f"{n:04}.jpg", bytes(20_000)) for n in range(500)]))
    asked = []
    inner = RetryingStream.read_at
    monkeypatch.setattr(
        RetryingStream, "read_at", lambda self, at, count: asked.append(count) or inner(self, at, count)
    )
    assert len(read_run(shard, IMAGE, 5_120_000, 6_144_000)) in (49, 50, 51)
    assert sum(asked) <= 1_024_000 + 2 * 65_536


def test_an_archive_in_the_archive_is_no_damage_and_is_known(tmp_path: Path) -> None:
    inner = archive([(f"inner{n}.jpg", b"i" * 600) for n in range(9)])
    members = [("a.jpg", b"a"), ("b.tar", inner), ("b.jpg", b"b" * 600), ("c.jpg", b"c" * 600), ("d.jpg", b"d")]
    members += [(f"e{n}.{suffix}", b"e" * 700) for n in range(40) for suffix in ("cls", "jpg")]
    shard = shard_of(tmp_path / "a.tar", archive(members))
    # The archive ends within a run, which therefore sees that it was misled.
    assert cut(shard, 20_480) == [item.key for item in read_shard(shard, IMAGE)]
    assert holds_archives(shard)
    assert not holds_archives(shard_of(tmp_path / "b.tar", archive(ODD)))


def test_long_extended_headers_are_not_cut(tmp_path: Path) -> None:
    names = [f"{'folder/' * 30}{n:03}.jpg" for n in range(40)]
    content = b"".join(
        pax(record("path", name) + record("SCHILY.xattr.x", "y" * 6000)) + header("cut", 900) + bytes(1024)
        for name in names
    )
    shard = shard_of(tmp_path / "a.tar", content + END)
    assert cut(shard, 4096) == [name.removesuffix(".jpg") for name in names]


def test_a_large_companion_at_the_end_is_passed_in_few_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [("a.jpg", b"a"), ("b.jpg", b"b"), ("b.mp4", bytes(60_000_000)), ("c.jpg", b"c")]
    shard = shard_of(tmp_path / "a.tar", archive(members))
    asked = []
    inner = RetryingStream.read_at
    monkeypatch.setattr(
        RetryingStream, "read_at", lambda self, at, count: asked.append(count) or inner(self, at, count)
    )
    assert [item.key for item in read_run(shard, IMAGE, 0, 1024)] == ["a", "b"]
    assert len(asked) < 25


def test_damage_in_a_run_is_named_and_what_is_before_it_is_not_looked_at(tmp_path: Path) -> None:
    content = bytearray(archive(FIXED))
    content[2048:2056] = b"\xff" * 8
    shard = shard_of(tmp_path / "a.tar", bytes(content))
    assert [item.key for item in read_run(shard, IMAGE, 4096, 6144)] == ["5", "6"]
    with pytest.raises(DamagedShardError, match="byte 2048"):
        read_run(shard, IMAGE, 1024, 4096)
    cut_off = shard_of(tmp_path / "b.tar", archive(FIXED)[:7000])
    with pytest.raises(DamagedShardError, match="cut off"):
        read_run(cut_off, IMAGE, 5120, 7000)


def test_another_file_under_the_name_is_an_error(tmp_path: Path) -> None:
    shard = shard_of(tmp_path / "a.tar", archive(FIXED))
    (tmp_path / "a.tar").write_bytes(archive(VARIABLE))
    with pytest.raises(ChangedShardError, match=r"a\.tar: changed since it was listed"):
        read_run(shard, IMAGE, 2048, 4096)


def test_noise_is_never_taken_for_a_header(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    members = [(f"{n}.jpg", rng.bytes(50_000)) for n in range(40)]
    shard = shard_of(tmp_path / "a.tar", archive(members))
    assert cut(shard, 8192) == [str(n) for n in range(40)]


@pytest.mark.heavy
def test_runs_of_an_object_store_are_those_of_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not on Google's emulator, which answers every range with the whole file.
    members = [(f"{n:03}.{suffix}", bytes([n]) * 5000) for n in range(60) for suffix in ("cls", "jpg")]
    with s3_server("bucket") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        Location("s3://bucket/pool/a.tar").write_bytes(archive(members))
        (shard,) = list_shards(["s3://bucket/pool/a.tar"], "")[0]
        whole = [item.key for item in read_shard(shard, IMAGE)]
        assert cut(shard, 65_536) == whole == [f"{n:03}" for n in range(60)]
        run = read_run(shard, IMAGE, 131_072, 262_144)
        assert run == [item for item in read_shard(shard, IMAGE) if item in run]
