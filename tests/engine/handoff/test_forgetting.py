"""What is to be forgotten has no label and is looked at by nobody; what is elsewhere is named."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.campaign import corrections, undoing
from engine.campaign.changes import current_shards
from engine.campaign.decisions import Author, forgotten
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import identities, labelled_items, labelled_values, labels_fingerprints
from engine.campaign.ledger import RETRACTED, read_ledger
from engine.campaign.status import status
from engine.errors import InputError
from engine.handoff.forgetting import forget
from engine.scoring.quarantine import require_acceptable
from engine.scoring.reading import read_chunks
from engine.scoring.score import describe
from engine.scoring.stream import read_rows
from engine.scoring.watchdog import Attempts
from engine.selection.select import select
from engine.storage.location import Location
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import table_of as records_table
from engine.training.plan import plan_training
from engine.training.streams import unlabelled
from jobs.cli import app
from tests.conftest import MakeCampaign
from tests.forgetful import Sent, content_of, forget_all, images, send, table_of
from tests.sendings import take_in


@pytest.fixture
def sent(make_campaign: MakeCampaign) -> Sent:
    return send(make_campaign("select.budget=10", "handoff.gold_fraction=0.2"))


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
    for word in (
        "rounds/*/scores",
        "weights",
        "votes/",
        "task files of batches",
        "labels export wrote",
    ):
        assert word in left
    assert sent.other_id not in left


def test_a_second_time_changes_nothing(sent: Sent) -> None:
    first = forget_all(sent.campaign, table_of(sent))
    before = content_of(sent.campaign)
    second = forget_all(sent.campaign, table_of(sent))
    assert (second.images, second.labels, second.deleted, second.left) == (2, 0, [], first.left)
    assert content_of(sent.campaign) == before


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
    with pytest.raises(InputError, match=r": 5 rows name no image; nothing was forgotten: correct the table$"):
        forget(sent.campaign, Location.of(str(file)), Author(), log.append)
    assert len(log) == 5


def test_an_image_that_was_never_picked_is_named_by_shard_and_key(sent: Sent) -> None:
    taken = {*labelled_items(sent.campaign.home), *identities(batches(sent.campaign.home, 0)[0].rows())}
    item = next(("digits-00000.tar", f"{n:06d}") for n in range(225) if ("digits-00000.tar", f"{n:06d}") not in taken)
    found = forget_all(sent.campaign, f"shard,key\n{','.join(item)}\n")
    assert (found.images, found.labels, found.deleted) == (1, 0, [])
    assert forgotten(sent.campaign.home) == {item}


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
    assert ledger.state_U[identities(ledger.items.table()).index(sent.item)] == RETRACTED
    with pytest.raises(InputError, match="was forgotten, and gets no label"):
        corrections.set_label(sent.campaign, sent.item, "3", lambda _: None)
    (name,) = (name.removeprefix("labels/") for name in labels_fingerprints(sent.campaign.home) if "-forget-" in name)
    with pytest.raises(InputError, match="what was forgotten stays so"):
        undoing.undo(sent.campaign, name)
    undoing.undo(sent.campaign, "000001-generic")
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
    records = records_table([ShardRecord("s", "f", 10, 1, 9, "", 0, errors=errors)])
    require_acceptable(sent.campaign, records, lambda _: None)


def test_what_was_forgotten_is_counted_apart(sent: Sent) -> None:
    campaign = sent.campaign
    file = Path(campaign.stage("scores").path, "manifest.json")
    manifest = json.loads(file.read_bytes())
    manifest["errors"] = {"campaign/Forgotten": 1, "decode/Truncated": 2}
    manifest["counts"]["quarantined"] = 3
    file.write_text(json.dumps(manifest))
    scores = status(campaign)["rounds"][0]["stages"]["scores"]
    assert (scores["quarantined"], scores["forgotten"], scores["errors"]) == (2, 1, {"decode/Truncated": 2})
    facts = describe(campaign, manifest)
    assert (facts["quarantined"], facts["forgotten, not scored"]) == (2, 1)
    assert facts["of these"] == "2 x decode/Truncated"
    found = CliRunner().invoke(app, ["status", str(campaign.home)]).stdout
    assert "2 bad" in found
    assert "1 forgotten" in found
    assert "Forgotten" not in found


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
