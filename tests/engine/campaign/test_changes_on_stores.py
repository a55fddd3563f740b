"""On an object store a shard's bytes have an ETag: what is only copied is not read again, and no write goes unseen."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.campaign.changes import look_again, refresh
from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.campaign.positions import labelled_positions
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards, look_up, read_shards
from engine.pool.shard import ChangedShardError, ShardError, check_unchanged
from engine.storage.location import Location
from tests.servers import gcs_server, s3_server
from tests.tars import archive

pytestmark = pytest.mark.heavy
ITEMS = [(f"{n}.png", bytes([n + 1]) * 600) for n in range(8)]


@pytest.fixture(params=["s3", "gs"])
def pool(request: pytest.FixtureRequest) -> Iterator[Location]:
    """A folder of two shards in a bucket."""
    server = s3_server if request.param == "s3" else gcs_server
    with server("bucket") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        folder = Location(f"{request.param}://bucket/pool")
        for name in ("a.tar", "b.tar"):
            (folder / name).write_bytes(archive(ITEMS))
        yield folder


def make(pool: Location, folder: Path) -> Campaign:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("shard", "key", "label"), ("a.tar", "0", "x"), ("a.tar", "3", "y")])
    config = override(CampaignConfig(), {"select.budget": 1}, "test")
    return create(
        f"{folder}/campaign", [f"{pool}/a.tar", f"{pool}/b.tar"], f"{folder}/labels.csv", config, lambda _: None
    )


def test_a_write_is_seen_at_the_same_size_and_second(pool: Location) -> None:
    shards, _ = list_shards([f"{pool}/a.tar", f"{pool}/b.tar"], "")
    assert [shard.etag_or_mtime[:5] for shard in shards] == ["etag:"] * 2
    assert look_up(shards).are_same(shards).all()
    check_unchanged(shards[0])
    (pool / "a.tar").write_bytes(archive([(name, data) for name, data in reversed(ITEMS)]))
    with pytest.raises(ChangedShardError, match=r"a.tar: changed since it was listed \(etag:.*; now etag:"):
        list(read_shard(shards[0], CampaignConfig().image))
    (pool / "b.tar").delete()
    with pytest.raises(ShardError, match=r"b.tar: the shard is gone"):
        check_unchanged(shards[1])


def test_what_is_only_written_again_is_not_read_again(
    pool: Location, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    campaign, log = make(pool, tmp_path), list[str]()
    before = read_shards(campaign.home)
    (pool / "a.tar").write_bytes(archive(ITEMS))
    # S3's times are whole seconds.
    look_again(campaign.home, {f"{pool}/a.tar"})
    caplog.clear()
    with caplog.at_level("INFO", "werkzeug"):
        after = refresh(campaign, log.append)
    assert [(shard.version, shard.num_items) for shard in after] == [(s.version, s.num_items) for s in before]
    assert log == ["1 of the pool's shards have another time and the same bytes: nothing changes"]
    if pool.url.startswith("s3"):
        # The listing, and two looks at the one shard.
        requests = [record.getMessage().split('"')[1].split(" ")[0] for record in caplog.records]
        assert sorted(requests) == ["GET", "HEAD", "HEAD"]


def test_a_look_at_one_shard_lists_no_pool(pool: Location, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    campaign = make(pool, tmp_path)
    before = read_shards(campaign.home)
    caplog.clear()
    with caplog.at_level("INFO", "werkzeug"):
        assert refresh(campaign, lambda _: None, only={"a.tar"}) == before
    if pool.url.startswith("s3"):
        requests = [record.getMessage().split('"')[1] for record in caplog.records]
        assert [request.split(" ")[:2] for request in requests] == [["HEAD", "/bucket/pool/a.tar"]]
    (pool / "b.tar").write_bytes(archive(ITEMS[:3]))
    (pool / "a.tar").write_bytes(archive([("new.png", b"new" * 5000), *ITEMS]))
    after = refresh(campaign, lambda _: None, only={"a.tar"})
    assert [now == then for now, then in zip(after, before, strict=True)] == [False, True]
    (pool / "a.tar").delete()
    assert refresh(campaign, lambda _: None, only={"a.tar"}) == after


def test_in_a_shard_that_is_remade_the_labelled_images_are_found(pool: Location, tmp_path: Path) -> None:
    campaign = make(pool, tmp_path)
    before = labelled_positions(campaign.home).to_pylist()
    (pool / "a.tar").write_bytes(archive([("new.png", b"new"), *ITEMS]))
    # S3's times are whole seconds, and a tar's size is rounded up.
    look_again(campaign.home, {f"{pool}/a.tar"})
    refresh(campaign, lambda _: None)
    after = labelled_positions(campaign.home).to_pylist()
    assert [row["offset"] for row in after] == [row["offset"] + 1024 for row in before]
