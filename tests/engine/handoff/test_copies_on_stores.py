"""Labelled sets on an object store, and copies on one that cannot be reached."""

import dataclasses
from pathlib import Path

import pytest

from engine.config.toml import override
from engine.handoff.training_data import export_labels
from engine.storage.location import Location
from tests.conftest import MakeCampaign
from tests.forgetful import forget_all, images, send, table_of
from tests.servers import s3_server


@pytest.mark.heavy
def test_a_labelled_set_on_a_store_is_the_local_one(
    make_campaign: MakeCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make_campaign()
    with s3_server("bucket") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        remote, local = Location.of("s3://bucket/sets/one"), Location.of(str(tmp_path / "one"))
        for folder in (remote, local, remote):
            export_labels(campaign, folder, "train=0.8,val=0.2", 0, lambda *_: None, lambda _: None)
        assert remote.children() == local.children()
        assert all((remote / name).read_bytes() == (local / name).read_bytes() for name in local.children())


def test_a_store_that_refuses_is_named_and_all_else_is_deleted(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = send(make_campaign("select.budget=10", "handoff.gold_fraction=0.2"))
    config = override(sent.campaign.config, {"handoff.images": "s3://bucket/images"}, "test")
    children = Location.children

    def refusing(folder: Location) -> dict[str, int]:
        if not folder.is_local:
            raise folder.unreadable(PermissionError(13, "Permission denied"), "listed")
        return children(folder)

    monkeypatch.setattr(Location, "children", refusing)
    found = forget_all(dataclasses.replace(sent.campaign, config=config), table_of(sent))
    assert not images(sent.campaign) & {sent.item_id, sent.alias}
    assert len(found.deleted) == 2
    (line,) = (line for line in found.left if line.startswith("the copies below s3://bucket/images: "))
    assert line.endswith("Permission denied; see to the access to it, then run again")
