"""Law 2: the items of a shard exactly, or a named failure."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.pool import list_shards
from engine.shards import BLOCK, Item, ShardError, read_items, read_shard

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def archive(members: list[tuple[str, bytes]], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read(content: bytes) -> list[Item]:
    return list(read_items(io.BytesIO(content), "shard.tar", len(content)))


MEMBERS = [(f"{i:03d}.{suffix}", bytes([i]) * (100 + 300 * i)) for i in range(6) for suffix in ("jpg", "json")]


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
def test_items_are_those_that_tarfile_reads(tar_format: int) -> None:
    long_names = (
        [(f"{'folder/' * 30}{i}ü.JPG", b"x" * i) for i in range(3)] if tar_format != tarfile.USTAR_FORMAT else []
    )
    content = archive(MEMBERS + long_names, tar_format)
    items = read(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        expected = {m.name: tar.extractfile(m).read() for m in tar if m.name.lower().endswith(".jpg")}  # type: ignore[union-attr]
    assert {item.key: item.data for item in items} == {n.rsplit(".", 1)[0]: c for n, c in expected.items()}
    assert all(content[item.offset : item.offset + item.size_bytes] == item.data for item in items)


@pytest.mark.parametrize("members", [MEMBERS, [(f"{i}.png", b"p" * 512) for i in range(5)]], ids=["variable", "fixed"])
@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
def test_a_cut_at_any_block_is_a_named_failure(members: list[tuple[str, bytes]], tar_format: int) -> None:
    content = archive(members, tar_format)
    whole = read(content)
    end_of_mark = len(content.rstrip(b"\0")) // BLOCK * BLOCK + 3 * BLOCK
    cuts = range(0, end_of_mark, BLOCK)
    assert len(cuts) > 10
    for cut in cuts:
        try:
            assert read(content[:cut]) == whole
        except ShardError as error:
            assert "cut off" in str(error)  # noqa: PT017
        else:
            # Only padding after the end mark may be missing.
            assert content[cut - 2 * BLOCK : cut] == bytes(2 * BLOCK)


@pytest.mark.parametrize("size", [1, 511, 513])
def test_a_cut_inside_a_block_is_a_named_failure(size: int) -> None:
    content = archive(MEMBERS)
    with pytest.raises(ShardError, match="cut off"):
        read(content[: 4 * BLOCK + size])


def test_a_key_that_comes_back_is_refused_by_name() -> None:
    with pytest.raises(ShardError, match="key 'a' appears again"):
        read(archive([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.json", b"3")]))


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([("a.json", b"{}"), ("a.txt", b"")], "0 images in the sample, expected 1 (json, txt)"),
        ([("a.jpg", b"1"), ("a.png", b"2")], "2 images in the sample, expected 1 (jpg, png)"),
    ],
)
def test_a_sample_without_one_image_is_listed_with_its_fault(members: list[tuple[str, bytes]], fault: str) -> None:
    items = read(archive([*members, ("b.jpeg", b"3")]))
    assert [(item.key, item.fault) for item in items] == [("a", fault), ("b", "")]


def test_a_mask_is_not_the_image_of_its_sample() -> None:
    items = read(archive([("a.jpg", b"image"), ("a.seg.png", b"mask")]))
    assert [(item.key, item.data) for item in items] == [("a", b"image")]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xff\xd8\xff" * 1000, "not a tar header"),
        (gzip.compress(archive(MEMBERS)), "gzip-compressed"),
        (archive(MEMBERS) + archive(MEMBERS), "data after the end mark"),
        (b"", "cut off"),
    ],
    ids=["jpeg", "gzip", "joined", "nothing"],
)
def test_what_is_no_single_tar_is_refused_by_name(content: bytes, fault: str) -> None:
    with pytest.raises(ShardError, match=fault):
        read(content)


def test_a_changed_byte_in_a_header_is_refused() -> None:
    content = bytearray(archive(MEMBERS))
    content[3] ^= 1
    with pytest.raises(ShardError, match="byte 0: not a tar header"):
        read(bytes(content))


def test_a_link_is_refused_by_name() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "b.jpg"
        tar.addfile(link)
    with pytest.raises(ShardError, match=r"'a.jpg' is not a regular file"):
        read(buffer.getvalue())


def test_a_size_beyond_the_archive_is_a_cut(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 1 << 40
    with pytest.raises(ShardError, match=r"cut off in 'a.jpg'"):
        read(info.tobuf(tarfile.GNU_FORMAT) + bytes(2 * BLOCK))


def test_a_shard_that_changed_since_init_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(archive(MEMBERS))
    (shard,), _ = list_shards([str(file)], "")
    assert len(list(read_shard(shard))) == 6
    file.write_bytes(archive(MEMBERS[:4]))
    with pytest.raises(InputError, match="changed since init"):
        list(read_shard(shard))
    file.unlink()
    with pytest.raises(InputError, match="the shard is gone"):
        list(read_shard(shard))
