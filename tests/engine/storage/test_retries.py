"""Errors at every block of a shard, and while it changes: exact items, or a named failure."""

import errno
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from engine.config.input_options import ImageConfig
from engine.pool import items as shards
from engine.pool import shard as pool
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.pool.samples import Item
from engine.pool.shard import Shard, ShardError, check_unchanged, read_ranges
from engine.pool.tar import BLOCK
from engine.storage import location as storage
from engine.storage import retries
from engine.storage.retries import ATTEMPTS, is_transient, retried
from tests.tars import FIXED, VARIABLE, archive

IMAGE = ImageConfig()
LOST = "When reading: AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28, Timeout was reached"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.0)


@pytest.fixture(params=["from a disk", "ahead, from a store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Shard]:
    """Puts a shard on a disk, or where it looks like one on an object store. Its blocks are small."""
    monkeypatch.setattr(shards, "BLOCK_BYTES", 3 * BLOCK)
    monkeypatch.setattr(shards, "LARGEST_BLOCK_BYTES", 5 * BLOCK)
    below_root = fs.SubTreeFileSystem("/", fs.LocalFileSystem())
    monkeypatch.setattr(storage, "_remote_filesystem", lambda url: below_root)

    def put(content: bytes) -> Shard:
        file = tmp_path / "a.tar"
        file.write_bytes(content)
        (shard,), _ = list_shards([str(file)], "")
        return shard if request.param == "from a disk" else shard._replace(url=f"store:/{file}")

    return put


class Faulty:
    """A stream in which reading fails at a byte: when it is reached, half-way through a read, or by ending there."""

    def __init__(self, stream: Any, position: int, at: int, how: str, faults: Iterator[Exception]) -> None:
        self.stream, self.position, self.at, self.how, self.faults = stream, position, at, how, faults

    def read(self, count: int) -> bytes:
        if self.how != "at once" and self.position < self.at:
            count = min(count, self.at - self.position)
        if self.position <= self.at < self.position + count and (fault := next(self.faults, None)):
            if self.how == "ends":
                return b""
            raise fault
        content: bytes = self.stream.read(count)
        self.position += len(content)
        return content

    def read_at(self, count: int, position: int) -> bytes:
        self.stream.seek(position)
        self.position = position
        return self.read(count)

    def close(self) -> None:
        self.stream.close()


class Storage:
    """Opens the shards' files, faulty in one place, and counts how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_opened, self.open = 0, pool._open
        self.at, self.how, self.faults = -1, "", iter(())
        monkeypatch.setattr(pool, "_open", self.opened)

    def opened(self, shard: Shard, position: int, **options: Any) -> Faulty:
        self.num_opened += 1
        return Faulty(self.open(shard, position, **options), position, self.at, self.how, self.faults)

    def fails(self, at: int, how: str, *faults: Exception) -> None:
        self.num_opened, self.at, self.how, self.faults = 0, at, how, iter(faults)


@pytest.mark.parametrize("how", ["at once", "half-way", "ends"])
@pytest.mark.parametrize("members", [VARIABLE, FIXED], ids=["variable", "fixed"])
def test_one_error_at_any_block_changes_nothing(
    place: Callable[[bytes], Shard], members: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty, content = Storage(monkeypatch), archive(members)
    shard = place(content)
    whole = list(read_shard(shard, IMAGE))
    assert [item.data for item in whole] == [data for name, data in members if not name.endswith("json")]
    for at in [*range(0, len(content), BLOCK), 700, len(content) - 1]:
        faulty.fails(at, how, OSError(LOST) if at % 1024 else ValueError("I/O operation on closed file"))
        assert list(read_shard(shard, IMAGE)) == whole, at
        assert faulty.num_opened == 2


@pytest.mark.parametrize("members", [VARIABLE, FIXED], ids=["variable", "fixed"])
@pytest.mark.parametrize(
    ("how", "fault", "reported", "num_opened"),
    [
        ("at once", OSError(LOST), f"given up after {ATTEMPTS} tries: {LOST}", ATTEMPTS),
        ("half-way", OSError(LOST), f"given up after {ATTEMPTS} tries: {LOST}", ATTEMPTS),
        ("ends", OSError(LOST), f"given up after {ATTEMPTS} tries: the stream ends", ATTEMPTS),
        ("half-way", PermissionError(13, "no permission"), "no permission", 1),
    ],
    ids=["at once", "half-way", "ends", "no permission"],
)
def test_an_error_that_stays_is_a_named_failure_at_any_block(
    place: Callable[[bytes], Shard], members: Any, how: str, fault: Exception, reported: str, num_opened: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    faulty, content = Storage(monkeypatch), archive(members)
    shard = place(content)
    whole = list(read_shard(shard, IMAGE))
    for at in range(0, len(content), BLOCK):
        faulty.fails(at, how, *[fault] * 100)
        items: list[Item] = []
        with pytest.raises(ShardError) as failure:
            items.extend(read_shard(shard, IMAGE))
        assert str(failure.value).startswith(f"{shard.url}: cannot be read: byte ")
        assert how == "at once" or f": byte {at}: " in str(failure.value)
        assert reported in str(failure.value)
        assert items == whole[: len(items)]
        assert faulty.num_opened == num_opened


def rewrite(shard: Shard, more: bytes) -> None:
    """Replace the shard's images, by larger ones with `more`; its size stays."""
    file = Path("/" + shard.url.split(":/")[-1])
    file.write_bytes(archive([(name, b"?" * len(data) + more) for name, data in FIXED])[: shard.size_bytes])
    os.utime(file, ns=(0, 10**18))


@pytest.mark.parametrize("more", [b"", b"!"], ids=["same layout", "other layout"])
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_shard_overwritten_while_it_is_read_is_a_named_failure(
    place: Callable[[bytes], Shard], is_lost: bool, more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = Storage(monkeypatch)
    shard = place(archive(FIXED))
    faulty.fails(12 * BLOCK if is_lost else -1, "half-way", OSError(LOST))
    items = read_shard(shard, IMAGE)
    assert next(items).data == FIXED[0][1]
    rewrite(shard, more)
    with pytest.raises(ShardError, match="changed since it was listed"):
        list(items)
    shard = place(archive(FIXED))
    ranges = read_ranges(shard, [(512, 512), (1536, 512)])
    next(ranges)
    rewrite(shard, more)
    with pytest.raises(ShardError, match="changed since it was listed"):
        list(ranges)


def test_ranges_and_look_ups_are_tried_again(place: Callable[[bytes], Shard], monkeypatch: pytest.MonkeyPatch) -> None:
    faulty, content = Storage(monkeypatch), archive(FIXED)
    shard = place(content)
    check, answers = pool._check, [OSError(LOST), pa.ArrowCapacityError("google::cloud::Status(RESOURCE_EXHAUSTED: x)")]

    def lost_at_first(shard: Shard) -> None:
        if answers:
            raise answers.pop()
        check(shard)

    monkeypatch.setattr(pool, "_check", lost_at_first)
    faulty.fails(600, "half-way", OSError(LOST))
    assert list(read_ranges(shard, [(1536, 512), (512, 512)])) == [content[1536:2048], content[512:1024]]
    answers += [OSError(LOST)] * (ATTEMPTS - 1)
    check_unchanged(shard)
    answers += [OSError(LOST)] * ATTEMPTS
    with pytest.raises(ShardError, match=f"{shard.url}: cannot be looked up: given up after {ATTEMPTS} tries"):
        check_unchanged(shard)


def test_the_waits_double_at_random_for_more_than_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def waits() -> list[float]:
        waited: list[float] = []
        with pytest.raises(OSError, match="given up"):
            retried(lambda: (_ for _ in ()).throw(OSError(LOST)), waited.append)  # type: ignore[arg-type]
        return waited

    first, second = waits(), waits()
    assert first != second
    assert 45 < sum(first) < 140
    assert all(0.25 * 2**n <= wait <= 0.75 * 2**n for n, wait in enumerate(first[:6]))


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]


@pytest.mark.parametrize("end", ["closed", "failed", "exhausted", "while it waits to try again"])
def test_no_thread_outlives_its_shard(
    end: str, place: Callable[[bytes], Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = readers()
    faulty = Storage(monkeypatch)
    shard = place(archive(VARIABLE))
    items = read_shard(shard, IMAGE)
    if end == "failed":
        faulty.fails(8 * BLOCK, "half-way", PermissionError(13, "no permission"))
        with pytest.raises(ShardError):
            list(items)
    elif end == "while it waits to try again":
        monkeypatch.setattr(retries, "FIRST_WAIT_S", 100.0)
        faulty.fails(12 * BLOCK, "half-way", OSError(LOST))
        next(items)
    else:
        next(items)
    assert not shard.url.startswith("store") or len(readers()) == len(before) + (end != "failed")
    began = time.monotonic()
    list(items) if end == "exhausted" else items.close()  # type: ignore[attr-defined]
    assert readers() == before
    assert time.monotonic() - began < 10


TRANSIENT = [
    # Texts of pyarrow 26, for answers of a server or for none.
    "When reading information for key 'x' in bucket 'b': AWS Error UNKNOWN (HTTP status 503) during HeadObject "
    "operation: No response body.",
    "AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate.",
    "AWS Error INTERNAL_FAILURE during GetObject operation: We encountered an internal error. Please try again.",
    LOST,
    "google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of PerformWork() - CURL error [7]="
    "Could not connect to server error_info={reason=, domain=, metadata={}})",
    "google::cloud::Status(DEADLINE_EXCEEDED: x)",
    "google::cloud::Status(INTERNAL: x)",
    "GetProperties failed for 'http://a/b'. Azure Error: [ServerBusy] 503 The server is busy.",
    "GetProperties failed for 'http://a/b'. Azure Error: [] 503 Service Unavailable\n\nRequest ID: ",
    "GetProperties failed for 'http://a/b'. Azure Error: [] Fail to get a new connection for: http://a. ",
]
LASTING = [
    "When reading information for key 'x' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject operation: No "
    "response body.",
    "AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: No response body.",
    "google::cloud::Status(PERMISSION_DENIED: Permanent error, with a last message of INTERNAL 503)",
    "GetProperties failed for 'http://a/b'. Azure Error: [] 403 Forbidden\n\nRequest ID: ",
    "GetProperties failed for 'http://a/b'. Azure Error: [BlobNotFound] 404 The specified blob does not exist.",
    "Cannot open for reading: path '/tmp' is a directory",
]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_store_that_is_busy_or_away_is_asked_again_whatever_its_status(status: int) -> None:
    head = f"AWS Error UNKNOWN (HTTP status {status}) during HeadObject operation: No response body."
    assert is_transient(OSError(head))
    assert is_transient(OSError(f"Azure Error: [] {status} No reason\n\nRequest ID: "))
    # The number alone says nothing: it may be that of a byte, a file or a port.
    assert not is_transient(OSError(f"cannot open shard-{status}.tar"))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 412, 416])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    head = f"AWS Error UNKNOWN (HTTP status {status}) during HeadObject operation: No response body."
    assert not is_transient(OSError(head))
    assert not is_transient(OSError(f"Azure Error: [] {status} No reason\n\nRequest ID: "))


def test_what_is_transient() -> None:
    assert [text for text in TRANSIENT if not is_transient(OSError(text))] == []
    assert [text for text in LASTING if is_transient(OSError(text))] == []
    lost = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN, errno.EINTR, errno.ENOTCONN)
    assert all(is_transient(OSError(number, "x")) for number in lost)
    assert not any(is_transient(OSError(number, LOST)) for number in (errno.ENOENT, errno.EACCES, errno.EISDIR))
    assert is_transient(ConnectionError("x"))
    assert is_transient(TimeoutError("x"))
    assert not is_transient(io.UnsupportedOperation("x"))
