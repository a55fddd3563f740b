"""Law 2: the items of a shard exactly, or a named failure."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from engine.config.input_options import ImageConfig
from engine.pool.formats import FORMATS as POOL_FORMATS
from engine.pool.formats import Format
from engine.pool.items import read_items, read_shard
from engine.pool.manifest import list_shards
from engine.pool.samples import KEYS_AT_ONCE, Item, Keys, Unused
from engine.pool.shard import ShardError
from engine.pool.tar import BLOCK, Archive
from tests.tars import END, FIXED, FORMATS, IMAGE, LONG_NAMES, VARIABLE, archive, header, read


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
def test_items_are_those_that_tarfile_reads(tar_format: int) -> None:
    long_names = LONG_NAMES if tar_format != tarfile.USTAR_FORMAT else []
    content = archive(VARIABLE + long_names, tar_format)
    items = read(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        expected = {m.name: tar.extractfile(m).read() for m in tar if m.name.lower().endswith(".jpg")}  # type: ignore[union-attr]
    assert {item.key: item.data for item in items} == {n.rsplit(".", 1)[0]: c for n, c in expected.items()}
    assert all(content[item.offset : item.offset + item.size_bytes] == item.data for item in items)


@pytest.mark.parametrize("members", [VARIABLE, FIXED], ids=["variable", "fixed"])
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
    content = archive(VARIABLE)
    with pytest.raises(ShardError, match="cut off"):
        read(content[: 4 * BLOCK + size])
    with pytest.raises(ShardError, match="cut off in the padding after the end mark"):
        list(read_items(Archive(iter([content]), "shard.tar", len(content) + size), IMAGE))


def test_a_key_that_comes_back_is_refused_by_name() -> None:
    with pytest.raises(ShardError, match="key 'a' appears again"):
        read(archive([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.json", b"3")]))


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([("a.json", b"{}"), ("a.txt", b"")], "0 images in the sample, expected 1 (json, txt)"),
        (
            [("a.jpg", b"1"), ("a.png", b"2")],
            "2 images in the sample, expected 1 (jpg, png); name the suffix of the image alone in image.suffixes",
        ),
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
        (b"\xff\xd8\xff" * 1000, "byte 0: not a tar header"),
        (gzip.compress(archive(VARIABLE)), "byte 0: gzip-compressed; unpack it"),
        (bz2.compress(archive(VARIABLE)), "byte 0: bzip2-compressed; unpack it"),
        (lzma.compress(archive(VARIABLE)), "byte 0: xz-compressed; unpack it"),
        (pa.compress(archive(VARIABLE), codec="zstd", asbytes=True), "byte 0: zstd-compressed; unpack it"),
        (archive(VARIABLE) + archive(VARIABLE), "data after the end mark"),
        (archive(VARIABLE) + bytes(3 << 20) + b"x", "data after the end mark"),
        (b"", "byte 0: cut off"),
    ],
    ids=["jpeg", "gzip", "bzip2", "xz", "zstd", "joined", "far behind", "nothing"],
)
def test_what_is_no_single_tar_is_refused_by_name(content: bytes, fault: str) -> None:
    with pytest.raises(ShardError, match=f"shard.tar: {fault}" if fault.startswith("byte") else fault):
        read(content)


def test_a_size_beyond_the_archive_is_a_cut(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 1 << 40
    with pytest.raises(ShardError, match=r"cut off in 'a.jpg'"):
        read(info.tobuf(tarfile.GNU_FORMAT) + bytes(2 * BLOCK))


def test_suffixes_count_in_any_case_and_as_configured() -> None:
    content = archive(
        [("a.JPG", b"1"), ("b.Seg.PNG", b"2"), ("b.png", b"3"), ("c.tiff", b"4"), (".png", b"5"), ("d", b"6")]
    )
    assert [(i.key, i.data) for i in read(content)] == [("a", b"1"), ("b", b"3"), ("c", b"")]
    configured = read(content, ImageConfig(suffixes=["TIFF", ".seg.png"]))
    assert [(i.key, i.data, i.error) for i in configured] == [
        ("a", b"", "NotOneImage"), ("b", b"2", ""), ("c", b"4", ""),
    ]  # fmt: skip


def test_an_image_larger_than_max_bytes_is_left_out_with_its_fault() -> None:
    content = archive([("a.jpg", b"1" * 600), ("a.txt", b"2"), ("b.jpg", b"3" * 601), ("c.jpg", b"4")])
    first, second, third = read(content, ImageConfig(max_bytes=600))
    assert (first.data, third.data) == (b"1" * 600, b"4")
    assert second == Item(
        "b", 6 * BLOCK, 601, b"", "an image of 601 bytes, more than image.max_bytes=600", "TooManyBytes"
    )


class Zeros(io.RawIOBase):
    """`start`, zeros for the rest of `size` bytes, and `end`, made as they are read."""

    def __init__(self, start: bytes, size: int, end: bytes) -> None:
        self.parts, self.zeros, self.largest = [end, start], size, 0

    def read(self, count: int = -1) -> bytes:
        self.largest = max(self.largest, count)
        if len(self.parts) == 2 or (self.parts and not self.zeros):
            return self.parts.pop()
        count = min(count, self.zeros)
        self.zeros -= count
        return bytes(count)


@pytest.mark.parametrize("name", ["a.txt", "a.png", "a.jpg"], ids=["no image", "second image", "too large"])
def test_what_is_no_image_is_never_held(name: str) -> None:
    size = 1 << 29
    start = header("a.jpg", 0) * (name != "a.jpg") + header(name, size)
    stream = Zeros(start, size, header("b.jpg", 0) + END)
    tracemalloc.start()
    blocks = iter(lambda: stream.read(1 << 20), b"")
    items = list(read_items(Archive(blocks, "shard.tar", len(start) + size + 3 * BLOCK), IMAGE))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(item.key, item.error) for item in items] == [
        ("a", {"a.txt": "", "a.png": "NotOneImage", "a.jpg": "TooManyBytes"}[name]),
        ("b", ""),
    ]
    assert peak < 8 << 20


def test_the_suffixes_of_a_sample_without_end_are_not_all_kept() -> None:
    (item,) = read(archive([(f"a.{i}", b"") for i in range(1000)]))
    assert item.fault == "0 images in the sample, expected 1 (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)"


def faults(content: bytes, image: ImageConfig = IMAGE) -> list[tuple[str, str]]:
    return [(item.key, item.error) for item in read(content, image)]


def test_images_with_dots_in_their_names_are_all_listed_as_lost() -> None:
    names = [f"2021.05.{day:02d}.png" for day in range(1, 31)]
    items = read(archive([(name, b"x") for name in names]))
    assert [item.key for item in items] == ["2021", *(name for name in names[1:])]
    assert {item.error for item in items} == {"NotOneImage"}
    assert "a suffix is all that follows the first dot of a name" in items[0].fault
    # A sample that has its image may have others beside it: masks, depths.
    assert faults(archive([("2021.jpg", b"1"), ("2021.05.png", b"2")])) == [("2021", "")]


@pytest.mark.parametrize("form", POOL_FORMATS, ids=lambda form: form.name)
def test_an_image_without_a_suffix_is_listed_as_lost(form: Format) -> None:
    content = io.BytesIO()
    Image.new("L", (4, 4)).save(content, form.name)
    members = [("folder/scan", content.getvalue()), ("folder/README", b"about"), ("folder/scan.png", b"1")]
    assert faults(archive(members)) == [("folder/scan.", "NoSuffix"), ("folder/scan", "")]


def all_of(content: bytes) -> tuple[list[Item], Unused]:
    found: list[Unused] = []

    def keeping() -> Iterator[Item]:
        found.append((yield from read_items(Archive(iter([content]), "shard.tar", len(content)), IMAGE)))

    items = list(keeping())
    return items, found[0]


KINDS = ("hard link", "symbolic link", "device", "device", "pipe")


def test_an_odd_member_costs_itself() -> None:
    links = [header("l.jpg", 7, kind) for kind in (b"1", b"2", b"3", b"4", b"6")]
    odd = header(b"\xff\xfe.jpg", 3) + b"abc".ljust(BLOCK, b"\0")
    label = header("volume", 0, b"V") + header("dump.jpg", 3, b"D") + b"abc".ljust(BLOCK, b"\0")
    content = archive([("a.jpg", b"1")])[: 2 * BLOCK] + b"".join(links) + odd + label + archive([("b.jpg", b"2")])
    items, unused = all_of(content)
    assert [(item.key, item.data) for item in items if not item.fault] == [("a", b"1"), ("b", b"2")]
    lost = [(item.key, item.error, item.fault.partition(";")[0]) for item in items if item.fault]
    assert lost == [
        *(("l.jpg", "NotAnImageFile", f"a {what}") for what in KINDS),
        ("\\xff\\xfe.jpg", "NotAnImageFile", "a file whose name is not UTF-8"),
        ("dump.jpg", "NotAnImageFile", "a member of type b'D'"),
    ]  # fmt: skip
    assert (unused.files, unused.bytes, unused.example) == (1, 0, "volume")


def test_what_belongs_to_no_sample_is_counted() -> None:
    members = [
        ("README", b"12345"), (".hidden.png", b"123"), ("._a.jpg", b"1"), ("__index__", b"1"),
        ("d/__meta__.json", b"1"), ("a.jpg", b"1"), ("a.json", b"22"), ("a.seg.png", b"333"),
    ]  # fmt: skip
    items, unused = all_of(archive(members))
    assert [item.key for item in items] == ["a"]
    assert (unused.files, unused.bytes, unused.example) == (3, 9, "README")


def test_an_image_with_the_name_of_no_sample_is_lost_and_named() -> None:
    png, jpg = b"\x89PNG\r\n\x1a\n" + bytes(8), b"\xff\xd8\xff\xe0" + bytes(12)
    members = [(".h0.png", png), ("__i0__.jpg", jpg), ("d/__thumb__", png), ("a.jpg", jpg)]
    items, unused = all_of(archive(members))
    assert [(item.key, item.error, item.fault) for item in items] == [
        (".h0.png", "NoSuffix", "a PNG file whose name begins with a dot; rename it"),
        ("__i0__.jpg", "NoSuffix", "a JPEG file with the name of metadata (__NAME__); rename it"),
        ("d/__thumb__.", "NoSuffix", "a PNG file without a suffix; rename it to end in .png"),
        ("a", "", ""),
    ]
    assert unused.files == 0


@pytest.mark.heavy
@pytest.mark.parametrize("place", [1, KEYS_AT_ONCE - 1, KEYS_AT_ONCE, 2 * KEYS_AT_ONCE + 5])
def test_a_key_that_comes_back_is_found_wherever_it_is(place: int) -> None:
    keys = [f"{n:07d}" for n in range(2 * KEYS_AT_ONCE + 10)]
    keys[place] = keys[0] if place > 1 else keys[3]
    content = b"".join(header(f"{key}.jpg", 0) for key in keys) + END
    with pytest.raises(ShardError, match=f"key '{keys[max(place, 3)]}' appears again"):
        read(content)


@pytest.mark.heavy
def test_the_keys_of_a_pool_in_one_shard_take_little_memory() -> None:
    keys = Keys(Archive(iter([END]), "s", len(END)))
    tracemalloc.start()
    for number in range(10**6):
        keys.add(f"{number:07d}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_a_shard_that_changed_since_init_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(archive(VARIABLE))
    (shard,), _ = list_shards([str(file)], "")
    assert len(list(read_shard(shard, IMAGE))) == 6
    file.write_bytes(archive(VARIABLE[:4]))
    with pytest.raises(ShardError, match="changed since it was listed"):
        list(read_shard(shard, IMAGE))
    file.unlink()
    with pytest.raises(ShardError, match="the shard is gone"):
        list(read_shard(shard, IMAGE))
