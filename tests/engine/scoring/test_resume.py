"""What is left to do, from storage alone: only what is missing, changed or failed, and nothing that is not ours."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.scored_shards import file_name
from engine.campaign.stages import Run
from engine.errors import ConfigError, InputError, UnreadableError
from engine.pool.manifest import read_shards
from engine.scoring import score as scoring
from engine.scoring.resume import Ledger, ScoringPlan, make_plan
from engine.simulation.demo_pools import DemoPool
from engine.storage.location import Location
from engine.tables.scores import to_table
from engine.tables.shard_records import RECORDS_SCHEMA, read_ledger, records_in
from tests import fabricate
from tests.committed import folders_of
from tests.conftest import MakeCampaign, pretend_trained
from tests.engine.scoring.test_score_files import ROWS, draft_of

INPUTS = {"vae.safetensors": "1", "code": "2"}


@pytest.fixture
def campaign(tmp_path: Path, make_campaign: MakeCampaign, pool: DemoPool) -> Campaign:
    """On a pool of its own, that a test may spoil."""
    root = shutil.copytree(Path(pool.shards[0]).parent, tmp_path / "pool")
    return make_campaign(f"pool.root={root}", shards=[f"{root}/*.tar"])


def plan(campaign: Campaign, **inputs: str) -> tuple[ScoringPlan, list[str]]:
    log: list[str] = []
    return make_plan(campaign, {**INPUTS, **inputs}, log.append), log


def commit(campaign: Campaign, made: ScoringPlan, *numbers: int, ledger: bool = True) -> None:
    book = Ledger(campaign.stage("ledger"))
    for number in numbers:
        shard = made.shards[number].shard
        committed = draft_of(ROWS, shard).commit(*folders_of(campaign), made.file_of(shard))
        if ledger:
            book.add(committed)
    book.close()


def left(made: ScoringPlan) -> list[int]:
    names = [shard.shard for shard in made.shards]
    return sorted(names.index(shard.shard) for shard in made.todo)


@pytest.mark.parametrize("ledger", [True, False], ids=["in the ledger", "in files alone"])
def test_what_is_committed_is_not_done_again(campaign: Campaign, ledger: bool) -> None:
    first, log = plan(campaign)
    assert (left(first), log) == (list(range(8)), [])
    commit(campaign, first, 2, 5, ledger=False)
    commit(campaign, first, 0, ledger=ledger)
    again, log = plan(campaign)
    assert left(again) == [1, 3, 4, 6, 7]
    assert log == ["3 of 8 shards are committed already"]
    assert set(again.committed["scored"].to_pylist()) == {12}


@pytest.mark.parametrize("what", ["vae.safetensors", "code"])
def test_files_of_other_weights_or_code_are_removed(campaign: Campaign, what: str) -> None:
    first, _ = plan(campaign)
    commit(campaign, first, 2, 5)
    again, log = plan(campaign, **{what: "other"})
    assert left(again) == list(range(8))
    assert len([line for line in log if "made of other bytes, weights, settings or code" in line]) == 2
    assert not campaign.stage("scores").children()
    assert not campaign.stage("quarantine").children()
    assert not {*map(first.file_of, first.shards.names.to_pylist())} & {
        *map(again.file_of, again.shards.names.to_pylist())
    }


def test_a_shard_whose_bytes_changed_is_done_again(campaign: Campaign) -> None:
    first, _ = plan(campaign)
    commit(campaign, first, *range(8))
    Path(first.shards[3].url).write_bytes(Path(first.shards[4].url).read_bytes())
    again, log = plan(campaign)
    assert left(again) == [3]
    assert "digits-00003.tar: its bytes changed since it was listed; the next scoring scores it again" in log[0]
    assert read_shards(campaign.home)[3] == again.shards[3] != first.shards[3]
    assert len(campaign.stage("scores").children()) == 7
    assert left(plan(campaign)[0]) == [3]


def test_a_shard_that_is_gone_is_left_to_fail_by_name(campaign: Campaign) -> None:
    first, _ = plan(campaign)
    Path(first.shards[3].url).unlink()
    again, log = plan(campaign)
    assert again.shards == first.shards
    assert not log


def test_a_complete_stage_of_another_versions_code_is_kept_and_that_is_said(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_trained(campaign)
    monkeypatch.setattr(fabricate, "fingerprint", lambda **_: fingerprint(code="1.0"))
    fabricate.fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32))
    file = campaign.stage("scores") / "manifest.json"
    file.write_json(json.loads(file.read_bytes()) | {"inputs": {"code": "1.0"}})
    for version, is_said in (("1.0", False), ("2.0", True)):
        monkeypatch.setattr(scoring, "inputs_of", lambda _, version=version: {"code": version})
        log: list[str] = []
        assert scoring.score(campaign, Run(log=log.append))["inputs"] == {"code": "1.0"}
        assert (
            log
            == ["scored by the code of another version; a complete stage is kept, the next round uses this one"][
                : int(is_said)
            ]
        )


def test_a_file_that_the_storage_refuses_to_give_stays(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = plan(campaign)
    commit(campaign, first, 1, 2, ledger=False)

    def refuse(self: Location) -> bytes:
        raise self.unreadable(OSError(errno.EACCES, "Permission denied"))

    with monkeypatch.context() as patch:
        patch.setattr(Location, "read_bytes", refuse)
        with pytest.raises(UnreadableError, match="cannot be read: Permission denied; see to the access"):
            plan(campaign)
    assert left(plan(campaign)[0]) == [0, 3, 4, 5, 6, 7]


def test_a_file_that_is_damaged_is_removed_and_done_again(campaign: Campaign) -> None:
    first, _ = plan(campaign)
    commit(campaign, first, 1, 2, 3)
    for number, content in ((1, b"short"), (2, b"")):
        Path((campaign.stage("scores") / first.file_of(first.shards[number].shard)).path).write_bytes(content)
    again, log = plan(campaign)
    assert left(again) == [0, 1, 2, 4, 5, 6, 7]
    assert len([line for line in log if line.endswith("it is damaged")]) == 2


def test_a_shard_that_failed_is_tried_again(campaign: Campaign) -> None:
    first, _ = plan(campaign)
    commit(campaign, first, 1)
    shard = first.shards[4].shard
    failed = draft_of([{**ROWS[0], "listed": 0, "failure": "cut off"}], shard)
    book = Ledger(campaign.stage("ledger"))
    book.add(failed.commit(*folders_of(campaign), first.file_of(shard)))
    book.close()
    assert left(plan(campaign)[0]) == [0, 2, 3, 4, 5, 6, 7]
    # Without a trace: the next attempt may find nothing to quarantine, and then writes no such file.
    kept = {first.file_of(first.shards[1].shard)}
    assert set(campaign.stage("scores").children()) == set(campaign.stage("quarantine").children()) == kept


def test_a_quarantine_file_without_scores_is_what_a_kill_left_behind(campaign: Campaign) -> None:
    first, _ = plan(campaign)
    commit(campaign, first, 1, 2)
    left_behind = first.file_of(first.shards[2].shard)
    (campaign.stage("scores") / left_behind).delete()
    again, _ = plan(campaign)
    assert left(again) == [0, 2, 3, 4, 5, 6, 7]
    assert left_behind not in campaign.stage("quarantine").children()


def test_a_name_follows_from_the_shard_and_not_from_its_place(campaign: Campaign) -> None:
    shards = read_shards(campaign.home)
    names = {file_name(shard, "key") for shard in shards}
    assert len(names) == 8
    assert file_name(shards[0]._replace(shard="a/b ü.tar"), "key").startswith("a-b-")
    other = [
        shards[0]._replace(shard="x.tar"), shards[0]._replace(version="other"),
    ]  # fmt: skip
    assert not {file_name(shard, "key") for shard in other} & names
    assert file_name(shards[0]._replace(num_items=5, url="/moved", mtime_ns=1, etag_or_mtime="m"), "key") in names


def test_the_ledger_gives_back_what_was_written(campaign: Campaign) -> None:
    pretend_trained(campaign)
    assert read_manifest(campaign, "train", TrainManifest)
    one = draft_of(ROWS, "one").commit(*folders_of(campaign), "a.parquet")
    two = one._replace(shard="two", failure="why", errors={})
    book = Ledger(campaign.stage("ledger"))
    book.add(one)
    book.close()
    book.close()
    book.add(two)
    book.close()
    assert len(campaign.stage("ledger").children()) == 2
    assert list(records_in(read_ledger(campaign.stage("ledger")))) == [one, two]


def test_a_foreign_file_in_the_ledger_is_named(campaign: Campaign) -> None:
    file = campaign.stage("ledger") / "0.parquet"
    file.write_table(pa.table({"shard": ["a"], "scored": [1]}))
    with pytest.raises(ConfigError, match=r"ledger/0.parquet: not a table of this kind"):
        read_ledger(campaign.stage("ledger"))
    Path(file.path).write_bytes(b"cut")
    with pytest.raises(InputError, match=r"ledger/0.parquet: not a readable Parquet file.*; delete it"):
        read_ledger(campaign.stage("ledger"))


@pytest.mark.parametrize("errors", ["no JSON", "[1]", '{"decode/Damaged": "many"}', "null"])
def test_a_ledger_with_wrong_counts_of_errors_is_named(campaign: Campaign, errors: str) -> None:
    file = campaign.stage("ledger") / "0.parquet"
    file.write_table(to_table([("a.tar", "a.parquet", 1, 1, 0, "", 1, "", errors, 0, 0, "", "")], RECORDS_SCHEMA))
    with pytest.raises(ConfigError, match=r"ledger/0.parquet: not a ledger: errors=.*; delete it"):
        read_ledger(campaign.stage("ledger"))
