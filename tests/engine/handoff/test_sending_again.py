"""What is done after a batch went out: the next wave, another round, a damaged folder, a selection that is gone."""

import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from engine.campaign.corrections import identity_of, retract
from engine.campaign.decisions import USER
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches, waiting_picks
from engine.campaign.ledger import STATES, read_ledger
from engine.campaign.recalling import recall
from engine.campaign.settling import close, progress_of
from engine.campaign.stages import Run
from engine.errors import ConfigError, InputError
from engine.handoff.choice import Wish
from engine.handoff.export import export
from engine.selection.select import select
from tests.sendings import take_in
from tests.small import copied, make_small, picked, with_settings

Contents = dict[Path, bytes]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("again"))


def contents(campaign: Campaign, vendor: str = "generic") -> Contents:
    folder = Path(campaign.stage(f"handoff/{vendor}").path)
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_name_of_a_batch_is_of_this_round(base: Campaign, tmp_path: Path) -> None:
    first = copied(base, tmp_path / "campaign")
    export(first, wish=Wish(limit=3))
    close(first, progress_of(first, read_ledger(first)), "test")
    second = picked(replace(first, round=1))
    with pytest.raises(ConfigError, match="no batch 'generic-000' in round 001; there are: rounds/000/handed_out/gen"):
        recall(second, ["generic-000"], USER, pick_again=False)
    export(second, wish=Wish(limit=2))
    assert recall(second, ["generic-000"], USER, pick_again=False).images == 2
    assert recall(second, ["rounds/000/handed_out/generic-000"], USER, pick_again=False).images == 3


def without(shard: Path, keys: set[str]) -> bytes:
    """Take images out of a shard. Returns what it was."""
    whole = shard.read_bytes()
    left = io.BytesIO()
    with tarfile.open(shard) as before, tarfile.open(fileobj=left, mode="w") as after:
        for member in before:
            if member.name.partition(".")[0] not in keys:
                after.addfile(member, before.extractfile(member))
    shard.write_bytes(left.getvalue())
    return whole


def test_waves_go_on_past_images_that_are_lost(tmp_path: Path) -> None:
    campaign = make_small(tmp_path / "world")
    picks = (campaign.stage("selection") / "selection.parquet").read_table().sort_by("rank").to_pylist()
    shard = picks[0]["shard"]
    lost = [pick["item_id"] for pick in picks if pick["shard"] == shard]
    left = [pick["item_id"] for pick in picks if pick["shard"] != shard]
    whole = without(tmp_path / "world" / shard, {pick["key"] for pick in picks if pick["shard"] == shard})
    lines: list[str] = []
    for number in range(3):
        export(campaign, Run(log=lines.append), wish=Wish(limit=1))
        sent = batches(campaign.home, 0)[-1].images()["item_id"].to_pylist()
        assert sent == [left[number]]
        assert progress_of(campaign, read_ledger(campaign)).waiting == len(left) - number - 1
    assert [line for line in lines if f"{len(lost)} of 9 picks are left out" in line]
    manifest = export(campaign)
    # Nothing that can be sent is left: the newest batch stays, however often it is asked.
    assert [export(campaign), export(campaign, wish=Wish(limit=1))] == [manifest] * 2
    with pytest.raises(InputError, match="none of its images is in its shard"):
        export(campaign, vendor="tsv")
    (tmp_path / "world" / shard).write_bytes(whole)
    export(campaign)
    assert batches(campaign.home, 0)[-1].images()["item_id"].to_pylist() == lost


@pytest.mark.parametrize("changed", [{"gold_fraction": 0.0}, {"strip_metadata": False}, {"prelabels": True}])
def test_a_damaged_batch_is_written_again_as_it_was_sent(
    base: Campaign, tmp_path: Path, changed: dict[str, object]
) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__gold_fraction=0.3)
    manifest, before = export(campaign), contents(campaign)
    Path(campaign.stage("handoff/generic").path, "tasks.csv").unlink()
    later = with_settings(campaign, **{f"handoff__{name}": value for name, value in changed.items()})
    assert export(later) == manifest
    assert contents(campaign) == before


def test_what_a_vendor_refuses_leaves_the_batch_before_where_it_is(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign")
    export(campaign, vendor="label-studio", wish=Wish(limit=2))
    before = contents(campaign, "label-studio")
    refusing = with_settings(campaign, handoff__question={"classes": ["a", "$b"]})
    with pytest.raises(ConfigError, match="takes \\$ for a variable"):
        export(refusing, vendor="label-studio")
    with pytest.raises(ConfigError, match="needs a task learner"):
        export(with_settings(campaign, handoff__prelabels=True), vendor="label-studio")
    assert contents(campaign, "label-studio") == before
    assert len(batches(campaign.home, 0)) == 1


def test_a_disputed_batch_does_not_change_what_was_picked(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign")
    export(campaign)
    item_id = batches(campaign.home, 0)[0].images()["item_id"][0].as_py()
    for who, label in ("a", "cat"), ("b", "dog"):
        (tmp_path / "answers.csv").write_text(f"item_id,label,annotator\n{item_id},{label},{who}\n")
        take_in(campaign, tmp_path / "answers.csv")
    export(campaign, wish=Wish(is_disputed=True))
    assert batches(campaign.home, 0)[-1].images()["item_id"].to_pylist() == [item_id]
    before = (campaign.stage("selection") / "selection.parquet").read_table()
    (campaign.stage("selection") / "manifest.json").delete()
    lines: list[str] = []
    select(campaign, Run(log=lines.append))
    assert (campaign.stage("selection") / "selection.parquet").read_table().equals(before)


def disputed(campaign: Campaign, folder: Path) -> list[str]:
    """Two images of a batch on which two people disagree, by item_id, of which more people are asked."""
    export(campaign)
    names: list[str] = batches(campaign.home, 0)[0].images()["item_id"].to_pylist()[:2]
    rows = [f"{name},{label},{who}\n" for name in names for who, label in (("a", "cat"), ("b", "dog"))]
    (folder / "answers.csv").write_text("item_id,label,annotator\n" + "".join(rows))
    take_in(campaign, folder / "answers.csv")
    return names


def test_more_people_are_asked_of_what_was_taken_back_only_where_that_is_said(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__annotators=2)
    names = disputed(campaign, tmp_path)
    export(campaign, wish=Wish(is_disputed=True))
    assert recall(campaign, ["generic-001"], USER, pick_again=False).images == 2
    with pytest.raises(ConfigError, match="nothing is disputed"):
        export(campaign, vendor="coco", wish=Wish(is_disputed=True))
    recall(campaign, ["generic-001"], USER, pick_again=True)
    export(campaign, vendor="coco", wish=Wish(is_disputed=True))
    assert sorted(batches(campaign.home, 0)[-1].images()["item_id"].to_pylist()) == sorted(names)
    # They are out with their first batch, so that no export sends them as picks.
    assert not set(names) & set(waiting_picks(campaign.home, 0)["item_id"].to_pylist())


def test_nobody_is_asked_of_an_image_that_is_never_to_be_picked(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__annotators=2)
    names = disputed(campaign, tmp_path)
    retract(campaign, identity_of(campaign, [names[0]]), never_pick=True)
    export(campaign, wish=Wish(is_disputed=True))
    assert batches(campaign.home, 0)[-1].images()["item_id"].to_pylist() == names[1:]
    # Nobody waits for it: the round can end.
    ledger = read_ledger(campaign)
    assert STATES[ledger.state_U[ledger.items.table(["item_id"])["item_id"].to_pylist().index(names[0])]] == "retracted"


def test_an_export_that_was_interrupted_leaves_no_task_files_in_the_record(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign")
    export(campaign)
    record = Path(campaign.stage("handed_out/generic-000").path)
    again = copied(base, tmp_path / "again")
    shutil.copytree(record, Path(again.stage("handed_out/generic-000").path), ignore=shutil.ignore_patterns("man*"))
    Path(again.stage("handed_out/generic-000").path, "tasks-002.csv").touch()
    export(again)
    assert {file.name for file in record.iterdir()} == {
        file.name for file in Path(again.stage("handed_out/generic-000").path).iterdir()
    }


@pytest.mark.parametrize("lost", ["", "manifest.json"])
@pytest.mark.parametrize("name", ["tsv-001", "generic-002"])
def test_a_record_that_is_gone_is_an_error_and_nothing_is_sent(
    base: Campaign, tmp_path: Path, name: str, lost: str
) -> None:
    campaign = copied(base, tmp_path / "campaign")
    for vendor in "generic", "tsv", "generic":
        export(campaign, vendor=vendor, wish=Wish(limit=2))
    record = Path((campaign.stage(f"handed_out/{name}") / lost).path)
    whole = record.rename(tmp_path / "kept")
    said = f"handed_out/{name}/manifest.json: gone, .*sent twice; restore"
    for command in (lambda: export(campaign, wish=Wish(limit=2)), lambda: read_ledger(campaign)):
        with pytest.raises(InputError, match=said):
            command()
    # A batch of an earlier version, and one of which no run came to say that it is out, have no file beside the record.
    for file in Path(campaign.stage("handed_out").path).glob("*.json"):
        file.unlink()
    if name == "tsv-001":
        with pytest.raises(InputError, match=said.replace("tsv-", r"\*-")):
            batches(campaign.home, 0)
    whole.rename(record)
    assert [batch.folder.name for batch in batches(campaign.home, 0)] == ["generic-000", "tsv-001", "generic-002"]
