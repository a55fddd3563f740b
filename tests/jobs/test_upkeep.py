"""`vaal clean` and `vaal verify`: what may go goes on a word alone, and nothing else; every changed file is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.campaign.cleaning import remove, waste_of
from engine.campaign.folder import Campaign
from engine.campaign.heartbeat import alone
from engine.campaign.verifying import verify
from engine.handoff.export import export
from engine.report.report import report
from engine.selection.explanation import explain
from engine.training.train import _keep_newest_checkpoint
from jobs.cli import app
from tests.sendings import take_in
from tests.small import copied, make_small


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Sent, answered in part, and reported."""
    campaign = make_small(tmp_path_factory.mktemp("upkeep"))
    export(campaign, vendor="generic")
    report(campaign)
    tasks = (campaign.stage("handoff/generic") / "tasks.jsonl").read_bytes().decode().splitlines()
    rows = [{"item_id": json.loads(line)["item_id"], "annotator": "ann", "label": "cat"} for line in tasks[:3]]
    file = Path(campaign.home.path).parent / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    take_in(campaign, file)
    return campaign


@pytest.fixture
def campaign(base: Campaign, tmp_path: Path) -> Campaign:
    return copied(base, tmp_path / "campaign")


def put(campaign: Campaign, name: str, size: int = 100) -> Path:
    path = Path(campaign.home.path) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def files(campaign: Campaign) -> dict[str, bytes]:
    home = Path(campaign.home.path)
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def called(*arguments: str) -> tuple[int, dict[str, Any]]:
    found = CliRunner().invoke(app, [*arguments, "--json"])
    return found.exit_code, json.loads(found.stdout)


WASTE = (
    "rounds/000/train/checkpoint/run/checkpoint_2/vae.safetensors",
    "rounds/000/train/checkpoint/run/checkpoint_1/vae.safetensors",
    "rounds/000/train/checkpoint/.validate_storage_marker",
    "rounds/000/scores/s-0-0123456789.parquet",
    "rounds/000/quarantine/s-0-0123456789.parquet",
    "labels/.000001-ingest-0.parquet.0123abcd",
    "rounds/000/report/.report.html.deadbeef",
)


def test_waste_is_listed_with_reasons_and_deleted_on_a_word_and_nothing_else_is(campaign: Campaign) -> None:
    before = files(campaign)
    assert called("clean", str(campaign.home)) == (
        0, {"campaign": str(campaign.home), "deleted": False, "bytes": 0, "files": 0, "waste": []},
    )  # fmt: skip
    for name in WASTE:
        put(campaign, name)
    status, listed = called("clean", str(campaign.home))
    assert (status, listed["files"], listed["bytes"]) == (0, len(WASTE), 100 * len(WASTE))
    assert {row["why"] for row in listed["waste"]} == {
        "checkpoints of a training that is complete",
        "left by writes that were interrupted",
        "replaced when the round was scored again",
    }
    assert files(campaign).keys() == before.keys() | {*WASTE}
    text = CliRunner().invoke(app, ["clean", str(campaign.home)]).stdout
    assert "May be deleted: 7 files, 700 bytes" in text
    assert f"vaal clean {campaign.home.quoted} --yes" in text
    assert called("clean", str(campaign.home), "--yes")[1]["deleted"]
    assert files(campaign) == before
    assert called("verify", str(campaign.home))[0] == 0


@pytest.mark.parametrize("missing", ["train", "scores"])
def test_what_a_run_goes_on_from_stays(campaign: Campaign, missing: str) -> None:
    for name in WASTE[:5]:
        put(campaign, name)
    (campaign.stage(missing) / "manifest.json").delete()
    left = {name for waste in waste_of(campaign) for name in waste.files}
    is_train = missing == "train"
    assert left == {"s-0-0123456789.parquet"} if is_train else {"run/checkpoint_1/vae.safetensors"} <= left
    assert is_train or not any(name.endswith(".parquet") for name in left)


def test_scores_of_old_rounds_go_where_that_is_asked_for_and_are_not_missed(campaign: Campaign) -> None:
    later = replace(campaign, round=2)
    assert not waste_of(later)
    assert not waste_of(later, 2)
    scored = [name for name in campaign.stage("scores").children() if name.endswith(".parquet")]
    (waste,) = waste_of(later, 1)
    assert sorted(waste.files) == scored
    assert waste.why == "scores of a round that ended more than 1 round ago (--scores-older-than)"
    remove(waste)
    assert not waste_of(later, 1)
    assert verify(campaign).faults == []
    # The picks, and why the others were not, are in the selection.
    pick = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()[0]
    assert explain(campaign, pick["shard"], pick["key"])["outcome"] == "picked"


@pytest.mark.heavy
def test_beside_a_run_at_work_nothing_is_listed_or_deleted(campaign: Campaign) -> None:
    put(campaign, WASTE[0])
    with alone(campaign.home, "train"):
        for words in ((), ("--yes",)):
            # What this process has to itself, another one cannot have.
            from contextvars import Context

            found = Context().run(CliRunner().invoke, app, ["clean", str(campaign.home), *words])
            assert found.exit_code == 5
    assert (Path(campaign.home.path) / WASTE[0]).exists()
    assert CliRunner().invoke(app, ["clean", str(campaign.home), "--scores-older-than", "0"]).exit_code == 2


HASHED = (
    "rounds/000/train/vae.safetensors",
    "rounds/000/scores/s-1-",
    "rounds/000/ledger/000000-",
    "rounds/000/selection/selection.parquet",
    "rounds/000/selection/candidates/candidates.parquet",
    "rounds/000/handed_out/generic-000/images.parquet",
    "rounds/000/handed_out/generic-000/tasks.csv",
    "rounds/000/report/report.html",
    "labels/initial.parquet",
)
CUT_OFF = ("votes/000001-generic.parquet", "rounds/000/selection/manifest.json")
"""No manifest has their hashes: they are read."""


@pytest.mark.parametrize(
    ("how", "name"),
    [*(("changed", name) for name in HASHED), *(("gone", name) for name in HASHED), *(("cut", n) for n in CUT_OFF)],
)
def test_a_file_that_is_not_what_was_committed_is_named(campaign: Campaign, how: str, name: str) -> None:
    (path,) = (path for path in map(Path, files(campaign)) if str(path).startswith(name))
    whole = Path(campaign.home.path) / path
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 1
    whole.write_bytes(content[:-9] if how == "cut" else content)
    if how == "gone":
        whole.unlink()
    before = files(campaign)
    found = verify(campaign)
    assert len([fault for fault in found.faults if str(path) in fault]) == 1, found.faults
    assert all("\n" not in fault for fault in found.faults)
    assert files(campaign) == before


def test_a_whole_campaign_has_no_fault_and_a_faulty_one_ends_with_status_4(campaign: Campaign) -> None:
    status, found = called("verify", str(campaign.home))
    assert (status, found["faults"]) == (0, [])
    assert found["files"] > 20
    Path(campaign.stage("train").path, "vae.safetensors").unlink()
    status, found = called("verify", str(campaign.home))
    assert (status, len(found["faults"])) == (4, 1)
    said = CliRunner().invoke(app, ["verify", str(campaign.home)])
    assert said.exit_code == 4
    assert "1 fault" in said.stdout


def test_a_finished_training_keeps_its_newest_checkpoint_alone(campaign: Campaign) -> None:
    storage = campaign.stage("train/checkpoint")
    for name in ("run/checkpoint_2026-01-01_1", "run/checkpoint_2026-01-01_2", "run/checkpoint_2026-01-02_0", "old/c"):
        put(campaign, f"rounds/000/train/checkpoint/{name}/vae.safetensors")
    put(campaign, "rounds/000/train/checkpoint/run/checkpoint_manager_snapshot.json")
    _keep_newest_checkpoint(storage, "run")
    assert storage.folders() == ["run"]
    assert (storage / "run").folders() == ["checkpoint_2026-01-02_0"]
    assert list((storage / "run").children()) == ["checkpoint_manager_snapshot.json"]
    shutil.rmtree(storage.path)
    _keep_newest_checkpoint(storage, "run")
