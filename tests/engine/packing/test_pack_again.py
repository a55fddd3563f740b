"""Packing again: what is new gets shards of its own, and whatever was interrupted ends as if nothing had happened."""

import hashlib
import json
import resource
from pathlib import Path
from typing import Any

import pytest

from engine.errors import BusyError, ConfigError, StorageError
from engine.packing import pack_batches, shard_writing
from engine.storage.location import Location
from tests.packed import contents_of, every_member, failures, fill, members, packed

WRITES = ("write_bytes", "write_file")


class KilledError(Exception):
    """Stands for the end of the process."""


def kill_at(number: int, patch: pytest.MonkeyPatch, *, is_before: bool) -> list[str]:
    """End the run before or after its `number`th write to storage, but for signs of life. Returns the files written."""
    written: list[str] = []
    for name in WRITES:
        original = getattr(Location, name)

        def write(place: Location, *args: Any, original: Any = original, **options: Any) -> Any:
            if place.name == "running.json":
                return original(place, *args, **options)
            if is_before and len(written) >= number:
                raise KilledError
            result = original(place, *args, **options)
            if place.url not in written:
                written.append(place.url)
            if not is_before and len(written) > number:
                raise KilledError
            return result

        patch.setattr(Location, name, write)
    return written


@pytest.mark.heavy
@pytest.mark.parametrize("is_before", [True, False])
def test_a_run_that_is_killed_at_any_write_and_run_again_gives_the_same_pool(tmp_path: Path, is_before: bool) -> None:
    fill(tmp_path / "in", [f"{folder}/{n}.png" for folder in "ab" for n in range(4)])
    (tmp_path / "in/bad.jpg").write_bytes(b"no image")
    how: dict[str, Any] = {"has_class_folders": True, "shard_images": 3}
    packed(tmp_path / "in", tmp_path / "whole", **how)
    expected = contents_of(tmp_path / "whole")
    number, was_killed = 0, True
    while was_killed:
        pool = tmp_path / f"killed-{number}"
        with pytest.MonkeyPatch.context() as patch:
            kill_at(number, patch, is_before=is_before)
            try:
                packed(tmp_path / "in", pool, **how)
                was_killed = False
            except KilledError:
                pass
        # What a killed write left in the pool is no shard.
        packed(tmp_path / "in", pool, **how)
        found = contents_of(pool)
        # Where the batch was complete, the second run tried the bad image again.
        assert {name for name in found if not name.startswith("packing/001")} == set(expected)
        assert all(found[name] == expected[name] for name in expected if name != "packing/000/manifest.json")
        number += 1
    assert number > 10


def test_a_change_of_the_source_after_the_plan_changes_no_shard_that_is_there(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", ["a.png", "b.png", "c.png", "d.png"])
    with pytest.MonkeyPatch.context() as patch:
        # Plan, first record, first shard; and the second record.
        kill_at(4, patch, is_before=False)
        with pytest.raises(KilledError):
            packed(tmp_path / "in", tmp_path / "pool", shard_images=2)
    first = members(tmp_path / "pool")
    assert list(first) == ["shard-000000.tar"]
    made |= fill(tmp_path / "in", ["0.png"])
    lines: list[str] = []
    found, _ = packed(tmp_path / "in", tmp_path / "pool", shard_images=2, log=lines.append)
    assert found.was_interrupted
    assert "run again to pack what is new since" in lines[0]
    assert "0.png" not in every_member(tmp_path / "pool")
    packed(tmp_path / "in", tmp_path / "pool", shard_images=2)
    assert every_member(tmp_path / "pool") == made
    assert members(tmp_path / "pool")["shard-000000.tar"] == first["shard-000000.tar"]


def test_what_is_new_gets_new_shards_and_old_ones_stay_as_they_are(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", ["cat/1.png", "dog/1.png"])
    packed(tmp_path / "in", tmp_path / "pool", has_class_folders=True)
    before = contents_of(tmp_path / "pool")
    found, _ = packed(tmp_path / "in", tmp_path / "pool", has_class_folders=True)
    assert (found.shards, found.images) == ([], 0)
    assert contents_of(tmp_path / "pool") == before
    (tmp_path / "in/cat/1.png").write_bytes(b"changed")
    made |= fill(tmp_path / "in", ["ant/1.png"])
    found, contents = packed(tmp_path / "in", tmp_path / "pool", has_class_folders=True)
    assert found.shards == ["shard-000001.tar"]
    assert every_member(tmp_path / "pool") == made
    assert contents.labels == {"ant": 1, "cat": 1, "dog": 1}
    after = contents_of(tmp_path / "pool")
    assert all(after[name] == content for name, content in before.items() if name != "labels.csv")


def test_what_failed_is_tried_again_and_then_is_no_failure(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png"])
    (tmp_path / "in/b.png").write_bytes(b"cut")
    packed(tmp_path / "in", tmp_path / "pool")
    assert failures(tmp_path / "pool") == {"b.png": "NotAnImage"}
    made = fill(tmp_path / "in", ["a.png", "b.png"])
    found, contents = packed(tmp_path / "in", tmp_path / "pool")
    assert (found.shards, contents.failures.total()) == (["shard-000001.tar"], 0)
    assert every_member(tmp_path / "pool") == made
    assert not (tmp_path / "pool/failures.parquet").exists()


def test_a_pool_of_another_source_or_with_other_options_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a/1.png"])
    fill(tmp_path / "other", ["a/1.png"])
    packed(tmp_path / "in", tmp_path / "pool")
    with pytest.raises(ConfigError, match=r"pool: holds shards of .*/in; give another POOL"):
        packed(tmp_path / "other", tmp_path / "pool")
    with pytest.raises(ConfigError, match="was packed without --classes-from-folders; do"):
        packed(tmp_path / "in", tmp_path / "pool", has_class_folders=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/x.tar").write_bytes(bytes(1024))
    with pytest.raises(ConfigError, match=r"holds x.tar, which vaal pack did not make"):
        packed(tmp_path / "in", tmp_path / "foreign")


def test_a_second_run_is_refused_while_one_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", ["a.png"])
    caught: list[Exception] = []
    original = shard_writing.write_record

    def meanwhile(*args: Any) -> None:
        from contextvars import Context

        try:
            Context().run(packed, tmp_path / "in", tmp_path / "pool")
        except BusyError as error:
            caught.append(error)
        original(*args)

    monkeypatch.setattr(shard_writing, "write_record", meanwhile)
    packed(tmp_path / "in", tmp_path / "pool")
    assert len(caught) == 1


@pytest.mark.parametrize("limit", [1000, 30_000])
def test_a_full_scratch_disk_is_one_line_and_loses_nothing(limit: int, tmp_path: Path) -> None:
    """It is full when the plan is written, or when a shard is."""
    made = fill(tmp_path / "in", [f"{n}.png" for n in range(60)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot be written: File too large; free space there, or"):
            packed(tmp_path / "in", tmp_path / "pool")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "pool/packing/000/plan.parquet").exists() == (limit > 1000)
    packed(tmp_path / "in", tmp_path / "pool")
    assert every_member(tmp_path / "pool") == made


def test_a_manifest_names_every_shard_by_its_hash(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png", "b.jpg", "c.png"])
    packed(tmp_path / "in", tmp_path / "pool", shard_images=2)
    manifest = json.loads((tmp_path / "pool/packing/000/manifest.json").read_text())
    for name, (size, sha256) in manifest["shards"].items():
        content = (tmp_path / "pool" / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, sha256)
    assert (manifest["images"], manifest["formats"]) == (3, {"jpg": 1, "png": 2})
    assert not (tmp_path / "pool/packing/000" / pack_batches.RECORDS).exists()


def test_a_shard_that_a_killed_run_still_wrote_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", ["a.png"])
    original = shard_writing.write_record

    def write(batch: Any, record: Any, rows: Any) -> None:
        original(batch, record._replace(size_bytes=record.size_bytes + 512), rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writing, "write_record", write)
        with pytest.raises(StorageError, match=r"shard-000000.tar: was written again meanwhile.*run the same command"):
            packed(tmp_path / "in", tmp_path / "pool")
    packed(tmp_path / "in", tmp_path / "pool")
    assert every_member(tmp_path / "pool") == made


def test_a_record_without_its_shard_does_not_count(tmp_path: Path) -> None:
    made = fill(tmp_path / "in", ["a.png", "b.png"])
    with pytest.MonkeyPatch.context() as patch:
        kill_at(2, patch, is_before=False)
        with pytest.raises(KilledError):
            packed(tmp_path / "in", tmp_path / "pool", shard_images=1)
    assert not list((tmp_path / "pool").glob("*.tar"))
    assert [file.name for file in (tmp_path / "pool/packing/000/records").iterdir()] == ["shard-000000.tar.parquet"]
    packed(tmp_path / "in", tmp_path / "pool", shard_images=1)
    assert every_member(tmp_path / "pool") == made
