"""What is to be forgotten: no copy, no label and no look at it is left here; what is elsewhere is named."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from engine.campaign import corrections
from engine.campaign.changes import current_shards
from engine.campaign.decisions import Author, forgotten
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import identities, labelled_items, labelled_values, labels_fingerprints
from engine.campaign.ledger import RETRACTED, read_ledger
from engine.campaign.stages import QUIET
from engine.campaign.votes import VOTES_SCHEMA, append_votes
from engine.config.toml import override
from engine.errors import InputError
from engine.handoff.export import export, refresh_links
from engine.handoff.forgetting import Forgotten, forget
from engine.handoff.vendor_files import is_intact
from engine.report.report import report
from engine.report.thumbnails import BLANK, read_thumbnails
from engine.scoring.quarantine import require_acceptable
from engine.scoring.reading import read_chunks
from engine.scoring.stream import read_rows
from engine.scoring.watchdog import Attempts
from engine.selection.select import select
from engine.storage.location import Location
from engine.tables.scores import ShardRecord
from engine.training.plan import plan_training
from engine.training.streams import unlabelled
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.rounds import make_round
from tests.sendings import take_in
from tests.servers import s3_server

Identity = tuple[str, str]


class Sent(NamedTuple):
    """A campaign with a batch out: an image of it to be forgotten, by item_id, a gold image by its alias, and a third
    that stays."""

    campaign: Campaign
    item_id: str
    item: Identity
    alias: str
    gold: Identity
    other_id: str


def forget_all(campaign: Campaign, text: str) -> Forgotten:
    file = Path(campaign.home.path).parent / "forget.csv"
    file.write_text(text)
    return forget(campaign, Location.of(str(file)), Author("ann", "asked to"), lambda _: None)


def send(campaign: Campaign) -> Sent:
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32))
    select(campaign)
    export(campaign)
    rows = batches(campaign.home, campaign.round)[0].rows().to_pylist()
    own = [row for row in rows if not row["gold"]]
    gold = next(row for row in rows if row["gold"])
    return Sent(
        campaign, own[0]["item_id"], (own[0]["shard"], own[0]["key"]), gold["item_id"], (gold["shard"], gold["key"]),
        own[1]["item_id"],
    )  # fmt: skip


@pytest.fixture
def sent(make_campaign: MakeCampaign) -> Sent:
    return send(make_campaign("select.budget=10", "handoff.gold_fraction=0.2"))


def table_of(sent: Sent) -> str:
    return f"item_id\n{sent.item_id}\n{sent.alias}\n"


def images(campaign: Campaign) -> set[str]:
    folder = Path(campaign.stage("handoff/generic/images").path)
    return {path.name.lstrip(".").partition(".")[0] for path in folder.iterdir()}


def test_copies_labels_and_picks_go_and_what_is_left_is_named(sent: Sent) -> None:
    home, before = sent.campaign.home, images(sent.campaign)
    Path(home.path, f"rounds/000/handoff/generic/images/.{sent.item_id}.png.1234").write_bytes(b"cut off")
    labels = labelled_values(home)
    found = forget_all(sent.campaign, table_of(sent))
    assert (found.images, found.labels, len(found.deleted)) == (2, 1, 3)
    assert not [url for url in found.deleted if Path(url).exists()]
    assert images(sent.campaign) == before - {sent.item_id, sent.alias}
    assert labelled_values(home) == {item: label for item, label in labels.items() if item != sent.gold}
    assert forgotten(home) == {sent.item, sent.gold}
    left = "\n".join(found.left)
    for shard, key in (sent.item, sent.gold):
        assert f"the image in the pool: shard {shard}, key {key} (" in left
    for name in (sent.item_id, sent.alias):
        assert f"the copy at generic: {name}, sent with generic-000; ask for its deletion" in left
    for word in ("rounds/*/scores", "weights", "votes/", "task files of batches", "labels export"):
        assert word in left
    assert sent.other_id not in left


def test_a_second_time_changes_nothing(sent: Sent) -> None:
    first = forget_all(sent.campaign, table_of(sent))
    before = content_of(sent.campaign)
    second = forget_all(sent.campaign, table_of(sent))
    assert (second.images, second.labels, second.deleted, second.left) == (2, 0, [], first.left)
    assert content_of(sent.campaign) == before


def content_of(campaign: Campaign) -> dict[str, bytes]:
    home = Path(campaign.home.path)
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id\nnobody\n", "line 2: item_id 'nobody' was never handed out or labelled; give shard and key"),
        ("shard,key\ndigits-00000.tar,nobody\n", "line 2: shard 'digits-00000.tar' has no item 'nobody'"),
        ("shard,key\nelsewhere.tar,1\n", "line 2: shard 'elsewhere.tar' is not in the pool"),
        ("shard,key\ndigits-00000.tar,\n", "line 2: no 'key'; give both"),
        ("name\n1\n", "line 2: no item_id, and no shard and key"),
        ("item_id\n", "no rows; give a table"),
    ],
)
def test_rows_that_name_no_image_are_refused_and_nothing_is_done(sent: Sent, text: str, message: str) -> None:
    before = content_of(sent.campaign)
    head, _, rest = text.partition("\n")
    good = {"item_id": sent.item_id, "shard,key": ",".join(sent.item)}.get(head, "")
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        forget_all(sent.campaign, f"{head}\n{rest}{good if rest else ''}\n")
    assert content_of(sent.campaign) == before


def test_all_reasons_are_given(sent: Sent) -> None:
    log: list[str] = []
    file = Path(sent.campaign.home.path).parent / "forget.csv"
    file.write_text("item_id\n" + "".join(f"nobody-{number}\n" for number in range(5)))
    with pytest.raises(InputError, match=r"and 2 more; nothing was forgotten: correct the table"):
        forget(sent.campaign, Location.of(str(file)), Author(), log.append)
    assert len(log) == 5


def test_an_image_that_was_never_picked_is_named_by_shard_and_key(sent: Sent) -> None:
    taken = {*labelled_items(sent.campaign.home), *identities(batches(sent.campaign.home, 0)[0].rows())}
    item = next(("digits-00000.tar", f"{n:06d}") for n in range(225) if ("digits-00000.tar", f"{n:06d}") not in taken)
    found = forget_all(sent.campaign, f"shard,key\n{','.join(item)}\n")
    assert (found.images, found.labels, found.deleted) == (1, 0, [])
    assert forgotten(sent.campaign.home) == {item}


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


@pytest.mark.parametrize("replace", [False, True])
def test_no_answer_and_no_person_gives_it_a_label_again(sent: Sent, tmp_path: Path, replace: bool) -> None:
    (tmp_path / "early.csv").write_text(f"item_id,label\n{sent.item_id},3\n")
    take_in(sent.campaign, tmp_path / "early.csv")
    assert labelled_values(sent.campaign.home)[sent.item] == "3"
    assert forget_all(sent.campaign, table_of(sent)).labels == 2
    (tmp_path / "late.csv").write_text(f"item_id,annotator,label\n{sent.item_id},bob,3\n{sent.other_id},bob,4\n")
    take_in(sent.campaign, tmp_path / "late.csv", replace=replace)
    labels = labelled_values(sent.campaign.home)
    assert sent.item not in labels
    ledger = read_ledger(sent.campaign)
    assert ledger.state_U[identities(ledger.items).index(sent.item)] == RETRACTED
    with pytest.raises(InputError, match="was forgotten, and gets no label"):
        corrections.set_label(sent.campaign, sent.item, "3", lambda _: None)
    (name,) = (name.removeprefix("labels/") for name in labels_fingerprints(sent.campaign.home) if "-forget-" in name)
    with pytest.raises(InputError, match="what was forgotten stays so"):
        corrections.undo(sent.campaign, name)
    corrections.undo(sent.campaign, "000001-generic")
    assert sent.item not in labelled_values(sent.campaign.home)


def test_it_is_not_picked_again(sent: Sent) -> None:
    campaign, (item, *_) = sent.campaign, [sent.item]
    corrections_file = batches(campaign.home, 0)[0]
    picked = identities(corrections_file.images())
    shutil.rmtree(campaign.stage("handed_out").path)
    shutil.rmtree(campaign.stage("selection").path)
    forget_all(campaign, "shard,key\n" + ",".join(item) + "\n")
    select(campaign)
    again = identities((campaign.stage("selection") / "selection.parquet").read_table())
    assert item not in again
    assert len(set(picked) & set(again)) >= 8


def test_networks_do_not_see_it(sent: Sent) -> None:
    forget_all(sent.campaign, table_of(sent))
    plan = plan_training(sent.campaign)
    assert sent.gold not in plan.labels
    assert sent.gold not in {position[:2] for position in plan.positions}
    for shard in plan.pool.shards:
        keys = {(shard.shard, item.key) for item in unlabelled(plan.pool, shard, {}, held_out=False)}
        assert keys
        assert not keys & {sent.item, sent.gold}
    with current_shards(sent.campaign, lambda _: None) as shards:
        _, reading = read_rows(sent.campaign, shards, {"fold_round": 0})  # type: ignore[typeddict-item]
        shard = next(shard for shard in shards if shard.shard == sent.item[0])
        rows = [*read_chunks(shard, reading, Attempts())]
    bad = "".join(str(row["bad"][0].as_py()) for row in rows)
    assert sent.item[1] in bad
    assert "Forgotten" in bad
    assert not any(sent.item[1].encode() in row["items"][0].as_py() for row in rows)


def test_what_was_forgotten_is_no_damage_of_a_shard(sent: Sent) -> None:
    errors = {"campaign/Forgotten": 9}
    records = {"s": ShardRecord("s", "f", 10, 1, 9, "", 0, errors=errors)}
    require_acceptable(sent.campaign, records, lambda _: None)


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


@pytest.mark.heavy
def test_killed_after_any_write_it_is_completed_by_the_same_command(
    make_campaign: MakeCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = send(make_campaign("select.budget=10", "handoff.gold_fraction=0.2"))
    (sent.campaign.stage("report") / "report.html").write_bytes(b"shows it")
    (sent.campaign.stage("report") / "picked.png").write_bytes(b"shows it")
    calm = copied(sent.campaign, tmp_path / "calm")
    with monkeypatch.context() as patch:
        num_steps = count_steps(patch, None)
        forget_all(calm, table_of(sent))
    assert num_steps[0] > 4
    expected = state_of(calm)
    for last in range(num_steps[0]):
        campaign = copied(sent.campaign, tmp_path / f"killed-{last}")
        with monkeypatch.context() as patch:
            count_steps(patch, last)
            with pytest.raises(KeyboardInterrupt):
                forget_all(campaign, table_of(sent))
        forget_all(campaign, table_of(sent))
        assert state_of(campaign) == expected
        assert len((campaign.home / "decisions").children()) == 1


def copied(campaign: Campaign, folder: Path) -> Campaign:
    shutil.copytree(campaign.home.path, folder / "campaign")
    return dataclasses.replace(campaign, home=Location.of(str(folder / "campaign")))


def state_of(campaign: Campaign) -> tuple[object, ...]:
    """What is so, without the times at which it came."""
    files = set(content_of(campaign))
    return forgotten(campaign.home), labelled_values(campaign.home), files


def count_steps(patch: pytest.MonkeyPatch, last: int | None) -> list[int]:
    """Count writes and deletions; with `last` the process ends before the next one."""
    done = [0]

    def counted(step: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            if done[0] == last:
                raise KeyboardInterrupt
            done[0] += 1
            return step(*arguments)

        return run

    for name in ("write_file", "delete", "clear"):
        patch.setattr(Location, name, counted(getattr(Location, name)))
    return done
