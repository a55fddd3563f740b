"""The copies of what is to be forgotten: handoffs, stores, masks and reports."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from engine.campaign.handed_out import batches
from engine.campaign.stages import QUIET
from engine.campaign.votes import VOTES_SCHEMA, append_votes
from engine.config.toml import override
from engine.handoff.export import export, refresh_links
from engine.handoff.vendor_files import is_intact
from engine.report.report import report
from engine.report.thumbnails import BLANK, read_thumbnails
from engine.storage.location import Location
from tests.conftest import MakeCampaign
from tests.forgetful import Sent, forget_all, images, send, table_of
from tests.rounds import make_round
from tests.servers import s3_server


@pytest.fixture
def sent(make_campaign: MakeCampaign) -> Sent:
    return send(make_campaign("select.budget=10", "handoff.gold_fraction=0.2"))


def test_a_report_is_made_again_without_it(tmp_path: Path) -> None:
    made = make_round(tmp_path)
    campaign = made.campaign
    report(campaign)
    picks = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    page, folder = campaign.stage("report") / "report.html", Path(campaign.stage("report").path)
    before = page.read_bytes()
    # It was made in the second in which the image is forgotten, or before.
    found = forget_all(campaign, f'shard,key\n{picks[0]["shard"]},"{picks[0]["key"]}"\n')
    assert page.url in found.deleted
    assert (campaign.stage("report") / "picked.png").url in found.deleted
    assert not [*folder.iterdir()]
    thumbnails = read_thumbnails(campaign, picks[:2])
    assert thumbnails[picks[0]["shard"], picks[0]["key"]] is BLANK
    assert thumbnails[picks[1]["shard"], picks[1]["key"]] is not BLANK
    report(campaign)
    assert page.read_bytes() != before
    # One that was made later stays.
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["completed_at"] = "2999-01-01T00:00:00+00:00"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert not forget_all(campaign, f'shard,key\n{picks[0]["shard"]},"{picks[0]["key"]}"\n').deleted
    assert page.exists()


def test_a_forgotten_image_is_not_read_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_round(tmp_path)
    pick = (made.campaign.stage("selection") / "selection.parquet").read_table().to_pylist()[0]
    forget_all(made.campaign, f'shard,key\n{pick["shard"]},"{pick["key"]}"\n')
    read: list[object] = []
    monkeypatch.setattr("engine.report.thumbnails.read_what_is_left", lambda _, places: read.extend(places) or [])
    read_thumbnails(made.campaign, [pick])
    assert not read


def test_masks_go_but_those_of_other_images_too(sent: Sent) -> None:
    folder = sent.campaign.home / "votes/masks"
    for name in ("own", "shared", "others"):
        (folder / f"{name}.png").write_bytes(name.encode())
    rows = [(sent.item_id, "own"), (sent.item_id, "shared"), (sent.other_id, "shared"), (sent.other_id, "others")]
    votes = [
        dict.fromkeys(VOTES_SCHEMA.names)
        | {
            "item_id": item_id,
            "vendor": "generic",
            "skipped": False,
            "vendor_answer_id": f"{number}",
            "value": json.dumps([{"label": "cat", "mask": f"votes/masks/{name}.png"}]),
        }
        for number, (item_id, name) in enumerate(rows)
    ]
    table = VOTES_SCHEMA.empty_table().from_pylist(votes, schema=VOTES_SCHEMA).drop_columns(["ingest"])
    append_votes(sent.campaign.home, "generic", table)
    config = override(sent.campaign.config, {"handoff.question.task": "mask"}, "test")
    found = forget_all(dataclasses.replace(sent.campaign, config=config), table_of(sent))
    assert list(folder.children()) == ["others.png", "shared.png"]
    assert f"a mask that other images have too: {(folder / 'shared.png').url}" in found.left


@pytest.mark.heavy
def test_copies_on_an_object_store_are_deleted(make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server("bucket") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        options = ("select.budget=10", "handoff.gold_fraction=0.2", "handoff.images=s3://bucket/images")
        sent, store = send(make_campaign(*options)), Location.of("s3://bucket/images")
        before = set(store.children())
        found = forget_all(sent.campaign, table_of(sent))
        gone = {f"{sent.item_id}.png", f"{sent.alias}.png"}
        assert set(store.children()) == before - gone
        assert set(found.deleted) == {f"s3://bucket/images/{name}" for name in gone}
        assert is_intact(sent.campaign, batches(sent.campaign.home, 0)[0])
        refresh_links(sent.campaign, QUIET, "generic")
        folder = sent.campaign.stage("handoff/generic")
        assert sent.item_id.encode() not in (folder / "links.csv").read_bytes() + (folder / "tasks.csv").read_bytes()
        assert sent.other_id.encode() in (folder / "links.csv").read_bytes()


def test_images_that_the_user_serves_are_named(make_campaign: MakeCampaign) -> None:
    sent = send(make_campaign("select.budget=10", "handoff.gold_fraction=0.2", "handoff.images=https://host/images"))
    found = forget_all(sent.campaign, table_of(sent))
    assert "the copies below https://host/images, which you serve: delete them there" in found.left


def test_gold_copies_of_an_export_that_was_interrupted_go_too(sent: Sent) -> None:
    shutil.rmtree(sent.campaign.stage("handed_out").path)
    assert sent.alias in images(sent.campaign)
    forget_all(sent.campaign, "shard,key\n" + ",".join(sent.gold) + "\n")
    assert sent.alias not in images(sent.campaign)


def test_the_vendors_folder_is_whole_without_it_and_is_not_repaired(sent: Sent) -> None:
    forget_all(sent.campaign, table_of(sent))
    batch = batches(sent.campaign.home, 0)[0]
    before = images(sent.campaign)
    assert is_intact(sent.campaign, batch)
    export(sent.campaign)
    assert images(sent.campaign) == before
    # A damaged one is written again, and still without it.
    kept = sent.campaign.stage("handoff/generic") / f"images/{sent.other_id}.png"
    kept.write_bytes(b"damaged")
    assert not is_intact(sent.campaign, batch)
    export(sent.campaign)
    assert images(sent.campaign) == before
    tasks = (sent.campaign.stage("handoff/generic") / "tasks.csv").read_bytes().decode()
    assert sent.other_id in tasks
    assert sent.item_id not in tasks
    assert sent.alias not in tasks
    assert is_intact(sent.campaign, batch)
    # One that somebody puts back is deleted with the next export.
    (sent.campaign.stage("handoff/generic") / f"images/{sent.item_id}.png").write_bytes(b"back")
    export(sent.campaign)
    assert images(sent.campaign) == before


def test_a_batch_that_is_forgotten_whole_is_left_alone(sent: Sent) -> None:
    rows = batches(sent.campaign.home, 0)[0].rows()
    forget_all(sent.campaign, "item_id\n" + "\n".join(rows["item_id"].to_pylist()) + "\n")
    assert not images(sent.campaign)
    export(sent.campaign)
    assert not images(sent.campaign)
