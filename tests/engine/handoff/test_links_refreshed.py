"""Images on an object store: linked, repaired, and linked again without a new task."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.stages import Run
from engine.errors import ConfigError
from engine.handoff.export import describe, export, refresh_links
from engine.storage.location import _remote_filesystem
from tests.servers import s3_server
from tests.signatures import Keys, is_s3_link
from tests.small import copied, make_small, with_settings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("links"))


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server("handoff") as environment:
        yield environment


@pytest.fixture
def store(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client of a store that is empty."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    _remote_filesystem.cache_clear()
    client = boto3.client("s3", endpoint_url=server["AWS_ENDPOINT_URL"])
    for found in client.list_objects_v2(Bucket="handoff").get("Contents", []):
        client.delete_object(Bucket="handoff", Key=found["Key"])
    yield client
    _remote_filesystem.cache_clear()


@pytest.fixture
def campaign(base: Campaign, store: Any, tmp_path: Path) -> Campaign:
    return copied(base, tmp_path / "campaign", handoff__images="s3://handoff/two words", handoff__link_days=2.0)


def tasks(campaign: Campaign) -> list[dict[str, Any]]:
    lines = Path(campaign.stage("handoff/generic").path, "tasks.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_links_are_signed_again_for_the_same_tasks(
    campaign: Campaign, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = export(campaign, wish=_first(4))
    before, folder = tasks(campaign), Path(campaign.stage("handoff/generic").path)
    assert not (folder / "images").exists()
    for task in before:
        name = task["file"].removeprefix("images/")
        assert store.get_object(Bucket="handoff", Key=f"two words/{name}")["ContentType"] == "image/png"
        with urlopen(task["link"]) as answer:
            assert len(answer.read()) == task["bytes"]
    later = datetime.now(UTC) + timedelta(days=1)
    monkeypatch.setattr("engine.handoff.export.datetime", _Clock(later))
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: later.replace(tzinfo=None))
    refreshed = refresh_links(with_settings(campaign, handoff__link_days=3.0), Run(), "generic")
    now = tasks(campaign)
    assert refreshed == manifest
    assert [{**task, "link": ""} for task in now] == [{**task, "link": ""} for task in before]
    assert all(task["link"] != old["link"] for task, old in zip(now, before, strict=True))
    in_four_days = later + timedelta(days=3, minutes=-1)
    keys = Keys("key", "secret", "")
    assert [is_s3_link(task["link"], keys, in_four_days) for task in now] == [True] * 4
    assert [is_s3_link(task["link"], keys, in_four_days) for task in before] == [False] * 4
    with (folder / "links.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"item_id": task["item_id"], "link": task["link"]} for task in now]
    (batch,) = batches(campaign.home, 0)
    assert batch.manifest == manifest
    # What a person reads is how it is now.
    assert datetime.fromisoformat(str(batch.links_expire_at)) == (later + timedelta(days=3)).replace(microsecond=0)
    assert describe(campaign, manifest)["links work until"] == batch.links_expire_at
    # The next export finds all in order, and sends the rest.
    lines: list[str] = []
    assert len(export(campaign, Run(log=lines.append), wish=_first(0))["files"]) == len(manifest["files"])
    assert not [line for line in lines if "written again" in line]
    assert export(campaign)["counts"]["images"] == 5


class _Clock:
    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def now(self, zone: Any = None) -> datetime:
        return self._moment


def _first(number: int) -> Any:
    from engine.handoff.choice import Wish

    return Wish(limit=number)


@pytest.mark.parametrize("damage", ["delete", "overwrite", "task file"])
def test_what_is_damaged_is_repaired(campaign: Campaign, store: Any, damage: str) -> None:
    export(campaign)
    before = tasks(campaign)
    key = f"two words/{before[2]['file'].removeprefix('images/')}"
    whole = store.get_object(Bucket="handoff", Key=key)["Body"].read()
    if damage == "delete":
        store.delete_object(Bucket="handoff", Key=key)
    elif damage == "overwrite":
        store.put_object(Bucket="handoff", Key=key, Body=b"x" * len(whole))
    else:
        Path(campaign.stage("handoff/generic").path, "tasks.jsonl").write_text("")
    refresh_links(campaign, Run(), "generic")
    assert store.get_object(Bucket="handoff", Key=key)["Body"].read() == whole
    assert [task["item_id"] for task in tasks(campaign)] == [task["item_id"] for task in before]
    lines: list[str] = []
    export(campaign, Run(log=lines.append))
    assert not any("written again" in line for line in lines)
    assert len(batches(campaign.home, 0)) == 1


def test_images_that_the_user_serves_are_files_with_links_below_the_url(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__images="https://images.example/a b/")
    export(campaign)
    folder = Path(campaign.stage("handoff/generic").path)
    for task in tasks(campaign):
        name = task["file"].removeprefix("images/")
        assert task["link"] == f"https://images.example/a%20b/{name}"
        assert (folder / task["file"]).exists()
    with pytest.raises(ConfigError, match="such links do not end"):
        refresh_links(campaign, Run(), "generic")
    with pytest.raises(ConfigError, match="nothing went to coco in this round"):
        refresh_links(campaign, Run(), "coco")
