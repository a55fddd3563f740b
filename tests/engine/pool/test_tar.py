"""The headers of a tar: what they say is read exactly, or refused by name."""

import io
import random
import tarfile

import pytest

from engine.pool.shard import ShardError
from engine.pool.tar import BLOCK
from tests.tars import END, FIXED, LONG_NAMES, VARIABLE, archive, header, pax, read, record, sealed

INTERESTING = bytes({0, 1, *b" -0179+_=LKxgS5/.\n", 0x7F, 0x80, 0xC3, 0xFF})


def test_a_changed_byte_in_a_header_is_refused() -> None:
    content = bytearray(archive(VARIABLE))
    content[3] ^= 1
    with pytest.raises(ShardError, match="byte 0: not a tar header"):
        read(bytes(content))


def x_header(*records: tuple[str, str]) -> bytes:
    return pax(b"".join(record(key, value) for key, value in records))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (header("a.jpg", b"-0000000010"), "is not an octal number"),
        (header("a.jpg", b"0o17"), "is not an octal number"),
        (header("a.jpg", b"\xff" * 12), "an impossible size"),
        (header("a.jpg", b"\xff" + bytes(10) + b"\x03"), "an impossible size"),
        (header("a.jpg", b"\xff" + b"\xff" * 10 + b"\xfd"), "an impossible size"),
        (header("a.jpg", b"\x81" + bytes(10) + b"\x03"), "an impossible size"),
        (header("a.jpg", b"\x80" + b"\xff" * 11), "an impossible size"),
        (header("a.jpg", b"\x80" + b"\x01" + bytes(10)), "an impossible size"),
        (header("a.jpg", b"\x80" + bytes(3) + b"\x80" + bytes(7)), "an impossible size"),
        (
            header("a.jpg", b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7),
            r"cut off in 'a.jpg' \(\d+ of 9223372036854775807",
        ),
        (
            header("a.txt", b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7),
            r"cut off in 'a.txt' \(\d+ of 9223372036854775807",
        ),
        (header("a", 1 << 21, b"x"), "an extended header of 2097152 bytes"),
        (header("a", 1 << 20, b"L"), "cut off in an extended header"),
        (x_header() * 9 + header("a.jpg", 0), "more than 8 extended headers of one file"),
        (x_header(("path", "b.jpg")), "the end mark where an extended header announces a file"),
        (x_header(("size", "-1")) + header("a.jpg", 0), "damaged extended header"),
        (x_header(("size", "1_0")) + header("a.jpg", 0), "damaged extended header"),
        (x_header(("size", "9" * 5000)) + header("a.jpg", 0), "damaged extended header"),
        (x_header(("size", "9" * 19)) + header("a.jpg", 0), "cut off in 'a.jpg'"),
        (x_header(("GNU.sparse.major", "1")) + header("a.jpg", 0), "sparse files are not supported"),
        (pax(b"9" * 400) + header("a.jpg", 0), "damaged extended header"),
        (pax(b"0 path=b.jpg\n") + header("a.jpg", 0), "damaged extended header"),
        (pax(b"99 path=b.jpg\n") + header("a.jpg", 0), "damaged extended header"),
        (pax(b"13 path=b.jpg!") + header("a.jpg", 0), "damaged extended header"),
        (pax(record("path", "b.jpg"), b"g") + header("a.jpg", 0), "gives all files one name or size"),
        (header("a.jpg", 0, b"S"), "'a.jpg' is not a whole file"),
        (header("a.jpg", 0, b"M"), "'a.jpg' is not a whole file"),
        (header("a.jpg", 0) + bytes(BLOCK) + header("b.jpg", 0), "half an end mark"),
    ],
)
def test_a_header_that_lies_is_refused_by_name(content: bytes, fault: str) -> None:
    with pytest.raises(ShardError, match=fault):
        read(content + END)


@pytest.mark.timeout(5)
def test_an_extended_header_of_many_records_is_read_at_once() -> None:
    size = record("size", "3")
    content = pax(record("a", "") * 100_000 + size) + header("a.jpg", 0) + b"abc".ljust(BLOCK, b"\0") + END
    assert [item.data for item in read(content)] == [b"abc"]


def test_global_records_a_gnu_size_and_folders_are_read_over() -> None:
    content = (
        pax(record("comment", "0123"), b"g")
        + header("folder/", 0, b"5")
        + header("folder/a.jpg", b"\x80" + (3).to_bytes(11, "big"))
        + b"abc".ljust(BLOCK, b"\0")
    )
    assert [(item.key, item.data) for item in read(content + END)] == [("folder/a", b"abc")]


@pytest.mark.parametrize("size", [1, 255, 256, 700, 70_000])
def test_a_size_in_base_256_is_the_number_that_its_bytes_spell(size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    binary = header("a.jpg", b"\x80" + size.to_bytes(11, "big"))
    content = binary + data + bytes(-size % BLOCK) + header("b.jpg", 1) + b"b".ljust(BLOCK, b"\0") + END
    assert [(item.key, item.data) for item in read(content)] == [("a", data), ("b", b"b")]
    # Python's own reader agrees.
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert [member.size for member in tar] == [size, 1]


def mutants(seed: int, count: int) -> None:
    """Bytes of headers changed, with and without a checksum that fits: exact items, or a named failure."""
    rng = random.Random(seed)
    wholes = [archive([*FIXED[:2], *LONG_NAMES[:1]], f) for f in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    wholes = [whole[: len(whole.rstrip(b"\0")) // BLOCK * BLOCK + 3 * BLOCK] for whole in wholes]
    expected = [read(whole) for whole in wholes]
    num_exact = 0
    for _ in range(count):
        number = rng.randrange(2)
        content = bytearray(wholes[number])
        start = rng.randrange(len(content) // BLOCK) * BLOCK
        is_sealed = rng.random() < 0.7
        for _ in range(rng.choice((1, 1, 2, 4)) if is_sealed else 1):
            content[start + rng.choice((rng.randrange(BLOCK), rng.randrange(124, 157)))] = rng.choice(INTERESTING)
        if is_sealed and content[start + 257 : start + 262] == b"ustar":
            content[start : start + BLOCK] = sealed(content[start : start + BLOCK])
        is_header = wholes[number][start + 257 : start + 262] == b"ustar"
        try:
            items = read(bytes(content))
        except ShardError:
            continue
        num_exact += 1
        assert all(content[item.offset : item.offset + item.size_bytes] == item.data for item in items)
        assert len({item.key for item in items}) == len(items)
        assert is_sealed or not is_header or items == expected[number]
    assert 0.01 * count < num_exact < 0.9 * count


@pytest.mark.heavy
def test_mutated_headers_give_exact_items_or_a_named_failure() -> None:
    mutants(0, 20_000)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_million_mutated_headers_give_exact_items_or_a_named_failure() -> None:
    mutants(1, 1_000_000)
