"""What is asked of an object store is bounded: a small file is one request, and a pool is listed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from engine.pool.manifest import list_shards
from engine.storage.location import Location, _remote_filesystem
from tests.faults.proxy import Fault, Plan, faulty_proxy
from tests.servers import s3_server

pytestmark = pytest.mark.heavy


@dataclass
class Counting(Plan):
    """Counts requests by method and path."""

    seen: Counter[str] = field(default_factory=Counter)

    def fate(self, method: str, path: str, range_: str) -> Fault | None:
        self.seen[f"{method} {path.partition('?')[0]}"] += 1
        return None


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    plan = Counting()
    with s3_server("requests") as environment, faulty_proxy(environment["AWS_ENDPOINT_URL"], plan) as url:
        for name, value in {**environment, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        yield plan
    _remote_filesystem.cache_clear()


def test_a_small_file_is_one_request_and_a_large_one_is_whole(counted: Counting) -> None:
    file = Location("s3://requests/folder/file")
    file.write_bytes(b"content", "text/plain")
    assert counted.seen == {"PUT /requests/folder/file": 1}
    large = bytes(range(256)) * 60_000
    file.write_bytes(large)
    assert file.read_bytes() == large


def test_of_a_pool_each_shard_is_asked_for_its_mark_alone(counted: Counting) -> None:
    for number in range(30):
        Location(f"s3://requests/pool/s-{number:02d}.tar").write_bytes(b"tar")
    counted.seen.clear()
    shards, _ = list_shards(["s3://requests/pool/*.tar"], "")
    assert len(shards) == 30
    of_shards = Counter({name: count for name, count in counted.seen.items() if ".tar" in name})
    assert set(of_shards.values()) == {1}
    assert counted.seen.total() - of_shards.total() < 10
