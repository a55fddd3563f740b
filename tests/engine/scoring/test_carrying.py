"""A pool that grows over rounds whose networks are the same: only what is new is scored."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.campaign.decisions import FORGOTTEN, USER, decide
from engine.campaign.folder import Campaign
from engine.campaign.growing import take_new
from engine.campaign.manifests import ScoresManifest
from engine.campaign.stages import Run
from engine.pool.identity import item_id_of
from engine.scoring.resume import make_plan
from engine.scoring.score import inputs_of, score
from engine.tables.shard_records import records_in
from engine.training.train import train
from tests.conftest import pretend_trained
from tests.fabricate import fabricate_scores
from tests.growing import EACH, glob_campaign, in_next_round, new_shard

SHARDS = 24


def logits(campaign: Campaign) -> dict[str, bytes]:
    """The content of the scores files by name."""
    folder = Path(campaign.stage("scores").path)
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.parquet"))}


def whole_round(campaign: Campaign) -> tuple[ScoresManifest, list[str]]:
    lines: list[str] = []
    train(campaign, Run(log=lines.append))
    return score(campaign, Run(log=lines.append)), lines


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
def test_a_pool_grows_over_three_rounds_and_what_is_new_is_scored(tmp_path: Path) -> None:
    """24 shards of 16 images, and one more each round: 384 images scored, then 16 and 16; at 12.5% all again."""
    settings = {"train__max_steps": 8, "train__batch_size": 8, "train__folds": 2, "pool__follow": True}
    campaign = glob_campaign(tmp_path, SHARDS, **settings)
    done, before = [], dict[str, bytes]()
    for number in range(4):
        manifest, lines = whole_round(campaign)
        done.append(manifest["effort"]["done"])
        assert manifest["counts"]["scored"] == (SHARDS + number) * EACH
        if number in (1, 2):
            assert before.items() <= logits(campaign).items()
            assert any("keep the scores of round" in line for line in lines)
        before = logits(campaign)
        campaign = in_next_round(campaign)
        new_shard(tmp_path / "pool", SHARDS + number)
    assert done == [SHARDS * EACH, EACH, EACH, (SHARDS + 3) * EACH]
    assert any("more than 10%; so they are trained" in line for line in lines)


@pytest.fixture
def scored(tmp_path: Path) -> Campaign:
    """Round 1 of a campaign, with the networks of round 0, whose scores are there."""
    campaign = glob_campaign(tmp_path)
    pretend_trained(campaign)
    zeros = partial(np.zeros, dtype=np.float32)
    fabricate_scores(campaign, lambda _, keys: zeros(len(keys)), quarantine_every=5, inputs=inputs_of(campaign))
    after = in_next_round(campaign)
    pretend_trained(after)
    return after


def todo(campaign: Campaign) -> tuple[list[str], list[str]]:
    lines: list[str] = []
    plan = make_plan(campaign, inputs_of(campaign), lines.append)
    for record in records_in(plan.committed):
        assert record.listed == record.scored + record.quarantined
        assert len(pq.read_table((campaign.stage("scores") / record.file).path)) == record.scored
    return sorted(shard.shard for shard in plan.todo), lines


def test_scores_are_carried_over_once(scored: Campaign, tmp_path: Path) -> None:
    new_shard(tmp_path / "pool", 3)
    # Its training is there, so that the new shard is of the next round.
    take_new(scored, print)
    left, lines = todo(scored)
    assert left == []
    assert "3 shards keep the scores of round 000: the networks are the same" in lines
    before = {file: file.stat().st_ino for file in Path(scored.home.path).glob("rounds/000/scores/*.parquet")}
    assert {file.stat().st_ino for file in Path(scored.home.path).glob("rounds/001/scores/*.parquet")} == set(
        before.values()
    )
    assert len(list(Path(scored.home.path).glob("rounds/001/quarantine/*.parquet"))) == 3
    left, lines = todo(scored)
    assert (left, lines) == ([], ["3 of 3 shards are committed already"])


def test_a_file_that_was_found_damaged_and_deleted_is_not_taken_over_again(scored: Campaign) -> None:
    assert todo(scored)[0] == []
    files = sorted(Path(scored.stage("scores").path).glob("*.parquet"))
    content = files[0].read_bytes()
    # The file of the earlier round is the same one.
    with files[0].open("r+b") as file:
        file.seek(len(content) // 2)
        file.write(bytes([content[len(content) // 2] ^ 1]))
    for file in files[:2]:
        file.unlink()
    assert todo(scored)[0] == ["s-0.tar"]


@pytest.mark.parametrize("why", ["damaged", "forgotten", "other settings", "other folds"])
def test_what_would_be_scored_otherwise_is_scored_again(scored: Campaign, why: str) -> None:
    folder = replace(scored, round=0).stage("scores")
    first, *_ = sorted(Path(folder.path).glob("*.parquet"))
    expected = ["s-0.tar"]
    if why == "damaged":
        first.write_bytes(first.read_bytes()[:-1])
    elif why == "forgotten":
        decide(
            scored.home, FORGOTTEN, [(item_id_of("s-0.tar", "001", scored.config.salt), "s-0.tar", "001", None)], USER
        )
    elif why == "other settings":
        config = scored.config.model_copy(update={"image": scored.config.image.model_copy(update={"max_bytes": 999})})
        scored, expected = replace(scored, config=config), ["s-0.tar", "s-1.tar", "s-2.tar"]
    else:
        manifest = scored.stage("train") / "manifest.json"
        manifest.write_json({**json.loads(manifest.read_bytes()), "fold_round": 1})
        expected = ["s-0.tar", "s-1.tar", "s-2.tar"]
    assert todo(scored)[0] == expected


def test_a_carry_that_was_interrupted_goes_on(scored: Campaign) -> None:
    assert todo(scored)[0] == []
    whole = logits(scored)
    shutil.rmtree(scored.stage("ledger").path)
    first, second, _ = sorted(Path(scored.stage("scores").path).glob("*.parquet"))
    # Killed between the two files of a shard, and before its record.
    first.unlink()
    second.unlink()
    Path((scored.stage("quarantine") / second.name).path).unlink()
    assert todo(scored)[0] == []
    assert logits(scored) == whole
