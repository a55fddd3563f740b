"""The ledger of a round's scores: columns in files of their own, named by hash, and older manifests with entries."""

from pathlib import Path

import numpy as np
import pytest

from engine.campaign import scored_shards
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import content_of
from engine.campaign.manifests import ScoresManifest, read_manifest
from engine.campaign.scored_shards import complete_scores, shard_records
from engine.errors import InputError
from engine.scoring.resume import make_plan
from engine.storage.location import Location
from engine.tables import shard_records as files_of_records
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import counts_of, record_of, records_in
from tests.committed import records_of, with_entries_inside
from tests.conftest import MakeCampaign
from tests.fabricate import fabricate_scores

DAMAGED = ShardRecord("", "", 3, 2, 1, "a" * 64, 9, "", {"decode/CutOff": 1})
WHOLE = (ShardRecord("", "", 5, 5, 0, "b" * 64, 8), ShardRecord("", "", 5, 5, 0, "b" * 64, 8, "", {}, 1, 10, "x"))
RECORDS = [
    (WHOLE[n % 2] if n % 3 else DAMAGED)._replace(shard=f"{n:02d}.tar", file=f"{n:02d}.parquet") for n in range(11)
]


@pytest.fixture
def campaign(make_campaign: MakeCampaign) -> Campaign:
    return make_campaign()


def complete(campaign: Campaign, records: list[ShardRecord] = RECORDS) -> ScoresManifest:
    return complete_scores(campaign, files_of_records.table_of(records), {"code": "1"}, {"device": "cpu"})


def test_records_come_back_sorted_from_files_of_bounded_length(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_of_records, "FILE_ROWS", 4)
    manifest = complete(campaign, RECORDS[::-1])
    assert records_of(campaign) == RECORDS
    tables = [(campaign.stage("ledger") / name).read_table() for name in manifest["ledger"]]
    assert list(map(len, tables)) == [4, 4, 3]
    assert manifest["errors"] == {"decode/CutOff": 4}
    found = manifest["counts"]
    assert found == counts_of(shard_records(campaign, manifest))
    assert (found["shards"], found["listed"], found["unused_files"]) == (11, 4 * 3 + 7 * 5, 3)
    assert record_of(shard_records(campaign, manifest), "07.tar") == RECORDS[7]
    assert record_of(shard_records(campaign, manifest), "no.tar") is None


def test_the_manifest_does_not_grow_with_the_shards(campaign: Campaign) -> None:
    complete(campaign)
    few = (campaign.stage("scores") / "manifest.json").info().size
    complete(campaign, [record._replace(shard=f"{n}-{record.shard}") for n in range(20) for record in RECORDS])
    assert (campaign.stage("scores") / "manifest.json").info().size < few + 50


def test_entries_in_a_manifest_of_an_earlier_version_are_the_same(campaign: Campaign) -> None:
    manifest = complete(campaign)
    old = with_entries_inside(campaign)
    assert "ledger" not in old
    assert records_of(campaign) == RECORDS
    read = read_manifest(campaign, "scores", ScoresManifest)
    # A selection that an earlier version made of these scores is not made again.
    assert content_of(read) == content_of(manifest) == manifest["content"]
    other = [RECORDS[0]._replace(sha256="c" * 64), *RECORDS[1:]]
    assert complete(campaign, other)["content"] != manifest["content"]
    renamed = [record._replace(file=f"new-{record.file}") for record in RECORDS]
    assert complete(campaign, renamed)["content"] == manifest["content"]


def test_a_ledger_that_changed_on_disk_is_one_line_that_names_it(campaign: Campaign) -> None:
    manifest = complete(campaign)
    (name,) = manifest["ledger"]
    file = Path((campaign.stage("ledger") / name).path)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"?")
    folder = campaign.stage("scores")
    fix = f"delete it and {folder}/manifest.json, then run: vaal score {campaign.home}"
    with pytest.raises(InputError, match=rf"{file}: not the file that was committed .*; restore .*{fix}"):
        shard_records(campaign, manifest)
    file.unlink()
    with pytest.raises(InputError, match=rf"{file}: cannot be read: No such file or directory; restore .*{fix}"):
        shard_records(campaign, manifest, ["shard"])
    (campaign.home / "rounds/001/train/x").write_bytes(b"")
    with pytest.raises(InputError, match=f"{file}: .*its round is over: restore it from a copy"):
        shard_records(campaign, manifest)


class Killed(BaseException):
    """The end of the process."""


def test_a_run_that_ends_between_ledger_and_manifest_is_finished_by_the_next(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make_campaign()
    fabricate_scores(campaign, lambda _, keys: np.zeros(len(keys), np.float32))
    records, manifest = records_of(campaign), read_manifest(campaign, "scores", ScoresManifest)
    (campaign.stage("scores") / "manifest.json").delete()
    names = set(campaign.stage("ledger").children())
    left = campaign.stage("ledger") / f"{1:020d}-0000.parquet"
    left.write_table(files_of_records.table_of(records[:1]))

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Location, "write_json", killed)
        with pytest.raises(Killed):
            complete_scores(campaign, files_of_records.table_of(records), {}, {"device": ""})
    assert not is_complete(campaign.stage("scores"))
    assert left.exists()
    plan = make_plan(campaign, {}, lambda _: None)
    assert not plan.todo
    assert sorted(records_in(plan.committed)) == records
    again = complete_scores(campaign, plan.committed, manifest["inputs"], {"device": ""})
    assert again["ledger"] == manifest["ledger"]
    assert set(campaign.stage("ledger").children()) == names


def test_columns_are_all_that_is_read(campaign: Campaign) -> None:
    manifest = complete(campaign)
    assert shard_records(campaign, manifest, ["shard", "file"]).column_names == ["shard", "file"]
    errors = list(records_in(scored_shards.damaged_in(shard_records(campaign, manifest))))
    assert errors == [record for record in RECORDS if record.quarantined]
